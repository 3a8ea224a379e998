// What AdCP's own JavaScript client makes of an agent: `node adcp_client.mjs ADDRESS [TOKEN]`, where @adcp/sdk is installed.
import { AgentClient } from "@adcp/sdk";

const [, , address, token] = process.argv;
console.warn = console.error; // the client's remarks are no answer
const agent = new AgentClient({ id: "audiopixel", name: "audiopixel", agent_uri: address, protocol: "mcp", ...(token ? { auth_token: token } : {}) }, {});
const calls = {
  capabilities: () => agent.getAdcpCapabilities({}),
  delivery: () => agent.getMediaBuyDelivery({}),
  status: () => agent.executeTask("get_reporting_status", { view: "summary", account: { account_id: "mine" } }),
};
const found = {};
for (const [name, call] of Object.entries(calls)) {
  try {
    const { success, error, data } = await call();
    found[name] = { success, error: error ?? null, data: data ?? null };
  } catch (error) {
    found[name] = { success: false, error: `${error.constructor.name}: ${error.message}`, data: null };
  }
}
process.stdout.write(JSON.stringify(found));
process.exit(0);
