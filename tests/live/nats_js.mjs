// What tests/live/test_nats_js.py has nats.js do: node nats_js.mjs URL COMMAND [ARGUMENT...], one line of JSON comes back.
import { connect } from "@nats-io/transport-node";
import { jetstream } from "@nats-io/jetstream";
import { Objm } from "@nats-io/obj";

const [url, command, ...args] = process.argv.slice(2);
const nc = await connect({ servers: url });
const store = await new Objm(jetstream(nc)).open("b");
const bytes = (text) => new TextEncoder().encode(text);

const commands = {
  put: (name, data) => store.putBlob({ name }, bytes(data)),
  link: async (name, to) => store.link(name, await store.info(to)),
  delete: (name) => store.delete(name),
  rename: (name, to) => store.update(name, { name: to }),
  get: async (name) => {
    const data = await store.getBlob(name);
    return data && new TextDecoder().decode(data);
  },
  info: async (name) => {
    const info = await store.info(name);
    return info && { name: info.name, deleted: info.deleted, nuid: info.nuid };
  },
  list: async () => (await store.list()).map((info) => info.name),
};
const result = await commands[command](...args);
await nc.close();
console.log(JSON.stringify(result ?? null));
