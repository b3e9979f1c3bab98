//! What was measured: statistics, the table and the line for programs.

use serde_json::{Map, Value, json};

/// The value below which this share of the values lies.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = ((sorted.len().saturating_sub(1)) as f64 * share).round() as usize;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

/// The middle one.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// What a figure is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// So much or less.
    AtMost(f64),
    /// So much or more.
    AtLeast(f64),
    /// At most so many times the floor's.
    TimesFloor(f64),
    /// For information.
    None,
}

/// One row of the table.
#[derive(Debug)]
struct Figure {
    key: String,
    what: String,
    unit: &'static str,
    value: f64,
    floor: Option<f64>,
    goal: Goal,
}

/// All rows.
#[derive(Debug, Default)]
pub(crate) struct Figures(Vec<Figure>);

impl Figures {
    pub(crate) fn add(
        &mut self,
        (key, what, unit): (impl Into<String>, impl Into<String>, &'static str),
        value: f64,
        floor: Option<f64>,
        goal: Goal,
    ) {
        self.0.push(Figure { key: key.into(), what: what.into(), unit, value, floor, goal });
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut text =
            format!("{:<46} {:>10} {:>10} {:>7}  {:<14} {}\n", "", "broker", "floor", "ratio", "goal", "met");
        for figure in &self.0 {
            let floor = figure.floor.map(number).unwrap_or_default();
            let ratio = figure.ratio().map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
            let goal = match figure.goal {
                Goal::AtMost(most) => format!("<= {}", number(most)),
                Goal::AtLeast(least) => format!(">= {}", number(least)),
                Goal::TimesFloor(most) => format!("<= {most} x floor"),
                Goal::None => String::new(),
            };
            let met = figure.met().map_or("", |met| if met { "yes" } else { "NO" });
            let what = format!("{} ({})", figure.what, figure.unit);
            text += &format!(
                "{what:<46} {:>10} {floor:>10} {ratio:>7}  {goal:<14} {met}\n",
                number(figure.value)
            );
        }
        text
    }

    /// For programs: one line of JSON.
    pub(crate) fn line(&self, circumstances: Value) -> String {
        let figures: Map<_, _> = self
            .0
            .iter()
            .map(|figure| {
                let value = json!({
                    "value": figure.value, "unit": figure.unit, "floor": figure.floor,
                    "ratio": figure.ratio(), "met": figure.met(),
                });
                (figure.key.clone(), value)
            })
            .collect();
        json!({"bench": "house", "circumstances": circumstances, "figures": figures}).to_string()
    }
}

impl Figure {
    fn ratio(&self) -> Option<f64> {
        self.floor.map(|floor| self.value / floor)
    }

    fn met(&self) -> Option<bool> {
        match self.goal {
            Goal::AtMost(most) => Some(self.value <= most),
            Goal::AtLeast(least) => Some(self.value >= least),
            Goal::TimesFloor(most) => self.ratio().map(|ratio| ratio <= most),
            Goal::None => None,
        }
    }
}

fn number(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}
