/** Connections by address: one primary node, or the primary that Sentinels name. */

import { createClient } from "@redis/client";

const SENTINEL_PORT = 26379;
const NO_CLUSTER =
  "this client does not read a Redis Cluster: let the flow write to a single node or to one behind Sentinels, " +
  "or read the cluster without this client (docs/bidders.md)";
const ADDRESS = /^(rediss?)\+sentinel:\/\/(?:(.*)@)?([^@/]+)\/([^/?]+)(?:\/(\d*))?$/;

/**
 * An address's parts: `{ url }` of a node, or of Sentinels `{ sentinels, service, node }`. Throws if the address is
 * malformed, or a Redis Cluster's. The forms are those of the Python client.
 */
export function addressOf(url) {
  const [scheme, rest = ""] = url.split("://");
  if (!scheme.endsWith("+sentinel")) {
    if (scheme.endsWith("+cluster") || /^[^/]*,/.test(rest.split("@").at(-1))) throw new RangeError(NO_CLUSTER);
    return { url };
  }
  const found = ADDRESS.exec(url);
  if (!found) throw new RangeError(`an address of Sentinels is ${scheme}://host:${SENTINEL_PORT},…/service[/db]`);
  const [, form, login = "", hosts, service, db] = found;
  const [username, password] = login.split(/:(.*)/s).map(decodeURIComponent);
  const sentinels = hosts.split(",").map((host) => new URL(`redis://${host}`));
  const tls = form === "rediss" ? { tls: true } : {};
  const node = { username: username || undefined, password: password || undefined, database: Number(db || 0), tls };
  return { sentinels, service: decodeURIComponent(service), node };
}

/** An answer that comes within `ms`; throws if it does not. */
export async function within(ms, answer) {
  let timer;
  const late = new Promise((_, fail) => {
    timer = setTimeout(() => fail(new Error("Redis does not answer")), ms);
  });
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Options of `createClient` for a connection to the present primary; `socket`: options of all connections. */
export async function primaryOf({ url, sentinels, service, node }, socket) {
  if (url) return { url, socket };
  let reason = null;
  for (const { hostname, port } of sentinels) {
    const at = { ...socket, ...node.tls, host: hostname.replace(/[[\]]/g, ""), port: Number(port || SENTINEL_PORT) };
    const sentinel = createClient({ socket: at });
    sentinel.on("error", () => {}); // `connect` and `sendCommand` throw it, too
    try {
      await within(socket.connectTimeout, sentinel.connect());
      const asked = sentinel.sendCommand(["SENTINEL", "GET-MASTER-ADDR-BY-NAME", service]);
      const primary = await within(socket.connectTimeout, asked);
      if (primary) {
        const { username, password, database, tls } = node;
        return { username, password, database, socket: { ...socket, ...tls, host: primary[0], port: Number(primary[1]) } };
      }
    } catch (error) {
      reason = error;
    } finally {
      if (sentinel.isOpen) sentinel.destroy();
    }
  }
  throw new Error(`no Sentinel names a primary of ${service}`, { cause: reason });
}

/** An error of Redis, in words where its own are none: a node of a cluster, or a Sentinel, answered. */
export function inWords(error) {
  if (error.message.startsWith("MOVED ")) return new Error(NO_CLUSTER);
  if (error.message.includes("unknown command 'TIME'"))
    return new Error("a Sentinel answers here: its address is redis+sentinel://host:port/service");
  return error;
}
