'use strict';
// Preloaded into every Node program that `tokenhub run` starts (NODE_OPTIONS=--require=...).
//
// Node before 22.21 and 24.5 reads no proxy variable, and later ones (NODE_USE_ENV_PROXY) leave out npm's undici,
// `ws` and whatever else opens its own TLS connection. All of them end in tls.connect, so that is where this stands:
// a connection that brings no socket of its own gets one that leads through the proxy. Plain http goes the same way.
//
// The program must never notice. Whatever is not understood here takes the original way, and nothing is printed.

(() => {
  const MARK = Symbol.for('tokenhub.shim');
  const HEAD_LIMIT = 65536;
  if (!process.env.TOKENHUB_ACTIVE || globalThis[MARK]) return;

  let proxy;
  try {
    proxy = new URL(process.env.HTTPS_PROXY || process.env.https_proxy);
  } catch {
    return;
  }
  if (proxy.protocol !== 'http:' && proxy.protocol !== 'https:') return;
  Object.defineProperty(globalThis, MARK, { value: true });

  const http = require('http');
  const module_ = require('module');
  const net = require('net');
  const tls = require('tls');
  const { Duplex } = require('stream');

  const connectPlain = net.connect;
  const connectTls = tls.connect;
  const createPlain = http.Agent.prototype.createConnection;

  const bare = (host) => host.replace(/^\[|\]$/g, '').toLowerCase();
  const proxyHost = bare(proxy.hostname);
  const proxyPort = Number(proxy.port) || (proxy.protocol === 'https:' ? 443 : 80);
  const credentials = proxy.username
    ? 'Proxy-Authorization: Basic ' +
      Buffer.from(`${decodeURIComponent(proxy.username)}:${decodeURIComponent(proxy.password)}`).toString('base64') +
      '\r\n'
    : '';

  // --- Who is left alone: NO_PROXY, as the other clients read it (names with what stands below them, IPv4 networks).
  const names = new Set();
  const networks = new net.BlockList();
  for (const entry of (process.env.NO_PROXY || process.env.no_proxy || '').split(/[\s,]+/)) {
    const [base, bits] = entry.split('/');
    if (bits !== undefined && net.isIPv4(base) && Number(bits) <= 32) networks.addSubnet(base, Number(bits), 'ipv4');
    else if (entry) names.add(entry === '*' ? entry : entry.toLowerCase().replace(/^\*?\./, ''));
  }

  function exempt(host, port) {
    if (!host || (host === proxyHost && port === proxyPort) || names.has('*')) return true;
    if (net.isIPv4(host) && networks.check(host, 'ipv4')) return true;
    for (let name = host; ; name = name.slice(name.indexOf('.') + 1)) {
      if (names.has(name) || names.has(`${name}:${port}`)) return true;
      if (net.isIP(host) || !name.includes('.')) return false;
    }
  }

  // --- A socket that leads through the proxy. What is written before the proxy has agreed waits.
  class Tunnel extends Duplex {
    constructor(host, port) {
      super();
      this._open = false;
      this._waiting = null;
      this._socket =
        proxy.protocol === 'https:'
          ? connectTls({ host: proxyHost, port: proxyPort, servername: net.isIP(proxyHost) ? '' : proxyHost })
          : connectPlain(proxyPort, proxyHost);
      this._socket.setNoDelay(true);
      const authority = `${net.isIPv6(host) ? `[${host}]` : host}:${port}`;
      this._socket.write(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n${credentials}\r\n`);
      this._socket.on('error', (error) => this.destroy(error));
      this._socket.on('timeout', () => this.emit('timeout'));
      // A proxy that hangs up before it has answered must not look like a server's orderly end.
      this._socket.on('close', () => this.destroy(this._open ? null : refusal('closed the connection')));
      let head = Buffer.alloc(0);
      const onHead = (chunk) => {
        head = Buffer.concat([head, chunk]);
        const end = head.indexOf('\r\n\r\n');
        if (end < 0 && head.length < HEAD_LIMIT) return;
        this._socket.off('data', onHead);
        const status = /^HTTP\/1\.[01] (\d{3})/.exec(head.toString('latin1', 0, 16));
        if (end < 0 || !status) this.destroy(refusal('gave no readable answer'));
        else if (status[1][0] !== '2') this.destroy(refusal(`answered ${status[1]}`));
        else this._opened(head.subarray(end + 4));
      };
      this._socket.on('data', onHead);
    }

    _opened(rest) {
      this._open = true;
      this._socket.on('data', (chunk) => {
        if (!this.push(chunk)) this._socket.pause();
      });
      this._socket.on('end', () => this.push(null));
      if (rest.length) this.push(rest);
      const waiting = this._waiting;
      this._waiting = null;
      if (waiting) waiting();
      this.emit('connect');
      this.emit('ready');
    }

    _read() {
      if (this._open) this._socket.resume();
    }

    _write(chunk, encoding, done) {
      const write = () => this._socket.write(chunk, encoding, done);
      if (this._open) write();
      else this._waiting = write;
    }

    _final(done) {
      if (this._open) this._socket.end(done);
      else this._waiting = () => this._socket.end(done);
    }

    _destroy(error, done) {
      this._socket.destroy();
      done(error);
    }

    // What http and ws ask of a socket.
    get connecting() { return !this._open; }
    get remoteAddress() { return this._socket.remoteAddress; }
    get remoteFamily() { return this._socket.remoteFamily; }
    get remotePort() { return this._socket.remotePort; }
    get localAddress() { return this._socket.localAddress; }
    get localPort() { return this._socket.localPort; }
    setKeepAlive(...args) { this._socket.setKeepAlive(...args); return this; }
    setNoDelay(...args) { this._socket.setNoDelay(...args); return this; }
    setTimeout(delay, listener) {
      if (listener) this.once('timeout', listener);
      this._socket.setTimeout(delay);
      return this;
    }
    ref() { this._socket.ref(); return this; }
    unref() { this._socket.unref(); return this; }
  }

  function refusal(what) {
    return Object.assign(new Error(`TokenHub's proxy at ${proxyHost}:${proxyPort} ${what}`), {
      code: 'ERR_PROXY_TUNNEL',
    });
  }

  // --- TLS: connect(options), connect(port[, host][, options]); each with a listener at the end, if any.
  // connect(path[, options]) is a Unix socket and none of our business.
  function understood(args) {
    const options = {};
    const [first, second] = args;
    if (first && typeof first === 'object') return { ...first };
    if (typeof first !== 'number' && !/^\d+$/.test(first)) return null;
    const given = args.find((argument) => argument && typeof argument === 'object');
    Object.assign(options, given, { port: Number(first) });
    if (typeof second === 'string') options.host = second;
    return options;
  }

  tls.connect = function connect(...args) {
    let options;
    try {
      options = understood(args);
      const host = options && bare(String(options.host || options.servername || ''));
      const port = options && Number(options.port || 443);
      if (!options || options.socket || options.path || exempt(host, port)) options = null;
      else {
        options.socket = new Tunnel(host, port);
        if (options.servername === undefined) options.servername = net.isIP(host) ? '' : host;
      }
    } catch {
      options = null;
    }
    if (options === null) return connectTls.apply(this, args);
    const listener = args[args.length - 1];
    const socket = connectTls.call(this, options, typeof listener === 'function' ? listener : undefined);
    // What Node itself does only for sockets that it opened: the idle limit, and letting a program end while an idle
    // connection waits in a pool (without the latter every program would live five seconds longer).
    if (options.timeout) socket.setTimeout(options.timeout);
    for (const name of ['ref', 'unref']) {
      const original = socket[name];
      socket[name] = function (...rest) {
        options.socket[name]();
        return original.apply(this, rest);
      };
    }
    return socket;
  };

  // --- Plain http, unless this Node does it itself.
  const [major, minor] = process.versions.node.split('.').map(Number);
  const native = major > 24 || (major === 24 && minor >= 5) || (major === 22 && minor >= 21);
  if (!native || process.env.NODE_USE_ENV_PROXY !== '1') {
    http.Agent.prototype.createConnection = function createConnection(options, done) {
      const host = bare(String((options && (options.host || options.hostname)) || ''));
      const port = Number((options && options.port) || 80);
      if (this.protocol !== 'http:' || !done || options.socketPath || exempt(host, port)) {
        return createPlain.call(this, options, done);
      }
      const tunnel = new Tunnel(host, port);
      const fail = (error) => done(error);
      tunnel.once('error', fail);
      tunnel.once('ready', () => {
        tunnel.off('error', fail);
        done(null, tunnel);
      });
      return undefined;
    };
  }

  // Programs written as ES modules hold copies of these exports.
  module_.syncBuiltinESMExports();
})();
