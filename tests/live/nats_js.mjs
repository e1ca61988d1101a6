// What tests/live/test_nats_js.py has nats.js do: node nats_js.mjs URL. Each line that it reads is a JSON list, [COMMAND, ARGUMENT...],
// and is answered by one: {"result": ...} or {"error": ..., "code": ...}. It ends with its input.
import { createInterface } from "node:readline";
import { connect, headers } from "@nats-io/transport-node";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { Base64KeyCodec, Kvm, NoopKvCodecs } from "@nats-io/kv";
import { Objm } from "@nats-io/obj";
import { ServiceError, Svcm } from "@nats-io/services";

const nc = await connect({ servers: process.argv[2] });
const js = jetstream(nc);
const manager = await jetstreamManager(nc);
const [keyValues, objectStores] = [new Kvm(js), new Objm(js)];
const [kv, obj, iterators] = [{}, {}, {}]; // by name: the buckets, and what is watched
const services = {}; // by name

const bytes = (text) => new TextEncoder().encode(text);
const text = (data) => data && new TextDecoder().decode(data);
const codec = { ...NoopKvCodecs(), key: Base64KeyCodec() };
const how = ({ base64, ...options } = {}) => (base64 ? { ...options, codec } : options);

// An entry of keys and values, or the info of an object, with what JSON has a word for.
const shown = (one) => {
  if (!(one instanceof Object)) return one;
  if ("key" in one) {
    const { key, revision, operation, delta } = one;
    return { key, value: one.string(), revision, operation, delta };
  }
  if (!("name" in one && "bucket" in one)) return one;
  const { name, bucket, nuid, size, chunks, deleted, description, metadata, options, digest } = one;
  const fields = one.headers?.keys ? Object.fromEntries(one.headers) : (one.headers ?? {});
  return { name, bucket, nuid, size, chunks, deleted, description, metadata, options, digest, headers: fields };
};
const collected = async (iterator) => {
  const all = [];
  for await (const one of await iterator) all.push(shown(one));
  return all;
};
const watch = async (name, iterator) => {
  iterators[name] = (await iterator)[Symbol.asyncIterator]();
};
const meta = ({ headers: fields, ...rest }) => {
  if (fields === undefined) return rest;
  const built = headers();
  for (const [key, values] of Object.entries(fields)) for (const value of values) built.append(key, value);
  return { ...rest, headers: built };
};
const status = ({ bucket, values, history, ttl, markerTTL, description, size, sealed, metadata }) =>
  ({ bucket, values, history, ttl, markerTTL, description, size, sealed, metadata });

// What a service of nats.js does with a request: echoes it, unless it says what else.
const serve = (error, request) => {
  if (error) return;
  const said = text(request.data);
  if (said === "refuse") request.respondError(418, "not here", bytes("more"));
  else if (said === "throw") throw new Error("thrown");
  else request.respond(bytes(`js: ${said}`));
};
const discovered = async (verb, ...whom) => collected(new Svcm(nc).client()[verb](...whom));

const commands = {
  "kv.create_bucket": async (b, options) => void (kv[b] = await keyValues.create(b, how(options))),
  "kv.open": async (b, options) => void (kv[b] = await keyValues.open(b, how(options))),
  "kv.list": () => collected(keyValues.list()).then((all) => all.map((one) => one.bucket)),
  "kv.status": async (b) => status(await kv[b].status()),
  "kv.put": (b, key, value) => kv[b].put(key, value),
  "kv.create": (b, key, value, ttl) => kv[b].create(key, value, ttl),
  "kv.update": (b, key, value, last) => kv[b].update(key, value, last),
  "kv.delete": (b, key, options) => kv[b].delete(key, options),
  "kv.purge": (b, key, options) => kv[b].purge(key, options),
  "kv.get": (b, key, options) => kv[b].get(key, options),
  "kv.history": (b, key) => collected(kv[b].history({ key })),
  "kv.keys": (b, filter) => collected(kv[b].keys(filter)),
  "kv.watch": (b, options) => watch(b, kv[b].watch(options)),
  "obj.create_bucket": async (b, options) => void (obj[b] = await objectStores.create(b, options)),
  "obj.open": async (b) => void (obj[b] = await objectStores.open(b)),
  "obj.status": async (b) => status(await obj[b].status()),
  "obj.put": (b, about, data) => obj[b].putBlob(meta(about), bytes(data)),
  "obj.link": async (b, name, to, other = b) => obj[b].link(name, await obj[other].info(to)),
  "obj.link_bucket": (b, name, other) => obj[b].linkStore(name, obj[other]),
  "obj.update": async (b, name, about) => (await obj[b].update(name, meta(about))).seq,
  "obj.delete": async (b, name) => (await obj[b].delete(name)).purged,
  "obj.get": async (b, name) => text(await obj[b].getBlob(name)),
  "obj.info": (b, name) => obj[b].info(name),
  "obj.list": (b) => obj[b].list().then((all) => all.map(shown)),
  "obj.watch": (b, options) => watch(b, obj[b].watch(options)),
  "obj.seal": async (b) => status(await obj[b].seal()),
  "js.publish": async (subject, data, options) => {
    const ack = await js.publish(subject, bytes(data), meta(options));
    return { stream: ack.stream, seq: ack.seq, val: ack.val ?? null };
  },
  "js.batch": async (messages) => {
    const [[first, data], ...rest] = messages;
    const batch = await js.startBatch(first, bytes(data));
    const [last, end] = rest.pop();
    for (const [subject, more] of rest) batch.add(subject, bytes(more));
    const { stream, seq, batch: id, count } = await batch.commit(last, bytes(end));
    return { stream, seq, batch: id, count };
  },
  "js.message": async (stream, seq) => {
    const found = await manager.streams.getMessage(stream, { seq });
    return { subject: found.subject, data: text(found.data), headers: Object.fromEntries(found.header ?? []) };
  },
  "js.last": async (stream, subject) => {
    const found = await manager.streams.getMessage(stream, { last_by_subj: subject });
    return { seq: found.seq, data: text(found.data), headers: Object.fromEntries(found.header ?? []) };
  },
  "svc.add": async (config, group, ...endpoints) => {
    const service = await new Svcm(nc).add(config);
    services[config.name] = service;
    const to = group ? service.addGroup(group) : service;
    for (const [name, options] of endpoints) to.addEndpoint(name, { ...options, handler: serve });
    await nc.flush();
    return service.info().id;
  },
  "svc.stop": async (name) => void (await services[name].stop()),
  "svc.ping": (...whom) => discovered("ping", ...whom),
  "svc.info": (...whom) => discovered("info", ...whom),
  "svc.stats": (...whom) => discovered("stats", ...whom),
  "svc.request": async (subject, data) => {
    const reply = await nc.request(subject, bytes(data), { timeout: 5000 });
    const error = ServiceError.isServiceError(reply) ? ServiceError.toServiceError(reply) : null;
    return { data: text(reply.data), error: error && [error.code, error.message] };
  },
  next: async (name, count) => {
    const all = [];
    while (all.length < count) all.push(shown((await iterators[name].next()).value));
    return all;
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const [command, ...given] = JSON.parse(line);
  let answer;
  try {
    answer = { result: shown(await commands[command](...given)) ?? null };
  } catch (error) {
    answer = { error: `${error.message}`, code: error.code ?? null };
  }
  console.log(JSON.stringify(answer));
}
await nc.close();
