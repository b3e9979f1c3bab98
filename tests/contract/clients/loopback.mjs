// Loaded before a client (`node --import`): a connection to anything but this machine fails, and is written
// down in the file that LOOPBACK_VIOLATIONS names, also when the client would not tell.
import { appendFileSync } from 'node:fs';
import net from 'node:net';

const local = (host) => host === 'localhost' || host === '::1' || /^127(\.\d+){3}$/.test(host);
const connect = net.Socket.prototype.connect;

net.Socket.prototype.connect = function (...args) {
  // Node's own normal form of the arguments: [options, callback].
  const [options] = Array.isArray(args[0]) ? args[0] : [typeof args[0] === 'object' ? args[0] : { port: args[0], host: args[1] }];
  const host = options.path === undefined ? String(options.host ?? 'localhost') : 'localhost';
  if (!local(host)) {
    appendFileSync(process.env.LOOPBACK_VIOLATIONS, `${host}:${options.port}\n`);
    throw new Error(`${host} is not on this machine`);
  }
  return connect.apply(this, args);
};
