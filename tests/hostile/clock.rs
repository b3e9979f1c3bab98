//! What the engine takes for the time is its own affair.

use crate::{
    meddler::{Door, Meddler, Treat},
    support::{TestEngine, agents::text},
};

#[test]
fn an_engine_whose_clock_is_a_year_off_is_an_engine_like_any_other() {
    for date in
        ["Sun, 02 Nov 2025 07:32:00 GMT", "Thu, 02 Nov 2028 07:32:00 GMT", "Thu, 01 Jan 1970 00:00:00 GMT"]
    {
        let engine = TestEngine::start();
        let meddler = Meddler::before(engine.addr());
        meddler.treat(Door::Socket, Treat::Dated(date));
        meddler.treat(Door::Calls, Treat::Dated(date));
        let house = meddler.house(&engine.key).start();
        let listener = house.listener("alice");
        let sender = engine.person("sender");
        engine.dm(&sender, "alice", &text("what time is it"));
        assert_eq!(listener.hears(1), ["what time is it"]);
        assert_eq!(meddler.sockets(), 1, "{date}: {}", house.log());

        // Also the token that was minted then is good afterwards.
        meddler.cut();
        meddler.reconnected(1);
        house.until_live();
        engine.dm(&sender, "alice", &text("and now"));
        assert_eq!(listener.hears(2), ["what time is it", "and now"]);
        assert_eq!(meddler.heard("POST /v1/nodes").len(), 1, "{date}: one mint");
    }
}
