// Drives a node that wants to know who asks, with the official JavaScript client of A2A over one of its bindings.
//
// Arguments: the address of the node's root, the binding, and a token that the node takes; the scene is that of
// guarded_client.py. Packages are found below the folder of the variable A2A_PACKAGES.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(pathToFileURL(`${process.env.A2A_PACKAGES}/`));
const load = (name) => import(pathToFileURL(require.resolve(name)));
const { ClientFactory, ClientFactoryOptions, ServiceParameters, withA2AExtensions } =
  await load("@a2a-js/sdk/client");
const { GrpcTransportFactory } = await load("@a2a-js/sdk/client/grpc");
const { Role, TaskState, StreamResponse } = await load("@a2a-js/sdk");

const [url, binding, token] = process.argv.slice(2);
const EXTENSION = "https://example.org/ext/needed";

// Whoever has a token sends it with each call.
const connect = (secret) => {
  const prove = {
    before: async (args) => {
      const parameters = { ...args.options?.serviceParameters };
      if (secret) parameters.Authorization = `Bearer ${secret}`;
      args.options = { ...args.options, serviceParameters: parameters };
    },
    after: async () => {},
  };
  const options = ClientFactoryOptions.createFrom(ClientFactoryOptions.default, {
    transports: [new GrpcTransportFactory()],
    preferredTransports: [binding],
    clientConfig: { interceptors: [prove] },
  });
  return new ClientFactory(options).createFromUrl(`${url}/`);
};
const known = () => ({ serviceParameters: ServiceParameters.create(withA2AExtensions(EXTENSION)) });
const text = (value) => ({
  content: { $case: "text", value }, metadata: undefined, filename: "", mediaType: "",
});
const ask = (value, more = {}, configuration = {}) => ({
  tenant: "",
  message: {
    messageId: `m-${value}`, role: Role.ROLE_USER, parts: [text(value)], contextId: "", taskId: "",
    metadata: undefined, extensions: [], referenceTaskIds: [], ...more,
  },
  configuration: {
    acceptedOutputModes: [], taskPushNotificationConfig: undefined, historyLength: undefined,
    returnImmediately: false, ...configuration,
  },
  metadata: undefined,
});
const task = (answer) => (answer.payload ? answer.payload.value : answer);
const refused = async (work) => {
  const error = await work().then(() => undefined, (error) => error);
  assert.ok(error, "it wasn't refused");
  return error;
};

const stranger = await connect();
const unknown = await refused(() => stranger.sendMessage(ask("who am I"), known()));
assert.match(`${unknown.stack}`, /401|nauthenticated|UNAUTHENTICATED|credential|token/);

const client = await connect(token);
// This client asks for the longer card where there is one.
const card = await client.getAgentCard(known());
assert.equal(card.description, "For those who are known.");
assert.ok(card.capabilities.pushNotifications && card.capabilities.extendedAgentCard);
const unaware = await refused(() => client.sendMessage(ask("unaware")));
assert.match(unaware.constructor.name, /ExtensionSupportRequiredError$/, unaware.stack);
assert.ok(unaware.message.includes(EXTENSION), unaware.message);

// A webhook that reads what it's sent with the client's own types.
const told = [];
let ended;
const end = new Promise((resolve) => (ended = resolve));
const server = createServer(async (request, response) => {
  let body = "";
  for await (const chunk of request) body += chunk;
  const event = StreamResponse.fromJSON(JSON.parse(body)).payload;
  told.push([request.headers, event]);
  response.end();
  if (event.value.status?.state === TaskState.TASK_STATE_COMPLETED) ended();
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const hook = `http://127.0.0.1:${server.address().port}/hook`;
const first = {
  tenant: "", id: "", taskId: "", url: hook, token: "known-to-us",
  authentication: { scheme: "Bearer", credentials: "of-the-hook" },
};
const begun = task(
  await client.sendMessage(ask("begin", {}, { taskPushNotificationConfig: first }), known()),
);
assert.equal(begun.status.state, TaskState.TASK_STATE_INPUT_REQUIRED, JSON.stringify(begun));
const second = {
  tenant: "", id: "second", taskId: begun.id, url: `${hook}?second`, token: "",
  authentication: undefined,
};
const made = await client.createTaskPushNotificationConfig(second, known());
assert.deepEqual([made.taskId, made.id, made.url], [begun.id, "second", second.url]);
const of = { tenant: "", taskId: begun.id, id: "second" };
assert.equal((await client.getTaskPushNotificationConfig(of, known())).url, second.url);
const wanted = { tenant: "", taskId: begun.id, pageSize: 0, pageToken: "" };
const both = await client.listTaskPushNotificationConfig(wanted, known());
assert.equal(both.configs.length, 2);
await client.deleteTaskPushNotificationConfig(of, known());
const left = await client.listTaskPushNotificationConfig(wanted, known());
assert.deepEqual(left.configs.map((config) => config.url), [hook]);

const more = ask("the end", { taskId: begun.id, referenceTaskIds: [begun.id] });
const done = task(await client.sendMessage(more, known()));
assert.equal(done.status.state, TaskState.TASK_STATE_COMPLETED, JSON.stringify(done));
assert.equal(done.artifacts[0].parts[0].content.value, "begin, the end");
assert.deepEqual(done.history.at(-1).referenceTaskIds, [begun.id]);
await end;
for (const [headers, event] of told) {
  assert.equal(headers.authorization, "Bearer of-the-hook");
  assert.equal(headers["x-a2a-notification-token"], "known-to-us");
  assert.equal(event.$case === "task" ? event.value.id : event.value.taskId, begun.id);
}

console.log("the official client agrees");
process.exit(0);
