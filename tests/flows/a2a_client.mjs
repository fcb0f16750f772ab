// Drives a node with the official JavaScript client of A2A, over one of its bindings.
//
// Arguments: the address of the node's root, and the binding. The node's agents are `shell` at the root
// and `curious`, which asks back. Packages are found below the folder of the variable A2A_PACKAGES.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(pathToFileURL(`${process.env.A2A_PACKAGES}/`));
const load = (name) => import(pathToFileURL(require.resolve(name)));
const { ClientFactory, ClientFactoryOptions } = await load("@a2a-js/sdk/client");
const { GrpcTransportFactory } = await load("@a2a-js/sdk/client/grpc");
const { Role, TaskState } = await load("@a2a-js/sdk");

const [url, binding] = process.argv.slice(2);
const options = ClientFactoryOptions.createFrom(ClientFactoryOptions.default, {
  transports: [new GrpcTransportFactory()],
  preferredTransports: [binding],
});
const connect = (path = "") =>
  new ClientFactory(options).createFromUrl(`${url}${path}/`);

const text = (value) => ({
  content: { $case: "text", value }, metadata: undefined, filename: "", mediaType: "",
});
const ask = (value, more = {}, configuration = {}) => ({
  tenant: "",
  message: {
    messageId: "m", role: Role.ROLE_USER, parts: [text(value)], contextId: "", taskId: "",
    metadata: undefined, extensions: [], referenceTaskIds: [], ...more,
  },
  configuration: {
    acceptedOutputModes: [], taskPushNotificationConfig: undefined, historyLength: undefined,
    returnImmediately: false, ...configuration,
  },
  metadata: undefined,
});
const all = async (stream) => {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
};
const payload = (event) => event.payload ?? event;
const kind = (event) => payload(event).$case;
const value = (event) => payload(event).value;
const refused = async (name, work) => {
  const error = await work().then(() => undefined, (error) => error);
  assert.ok(error, `no ${name}`);
  assert.equal(error.name ?? error.constructor.name, name, `${error.stack}`);
  return error.message;
};

const client = await connect();
// Waiting for the whole task.
const sent = await client.sendMessage(ask("uname -n"));
const task = sent.payload ? sent.payload.value : sent;
assert.equal(task.status.state, TaskState.TASK_STATE_COMPLETED, JSON.stringify(task));
assert.equal(task.artifacts[0].parts[0].content.value, "cell\n");
const again = await client.getTask({ tenant: "", id: task.id, historyLength: undefined });
assert.deepEqual(again.artifacts, task.artifacts);
assert.equal(again.history.length, 1);

// A stream of it.
const events = await all(client.sendMessageStream(ask("echo hi")));
assert.deepEqual(events.map(kind), ["task", "statusUpdate", "artifactUpdate", "statusUpdate"]);
assert.equal(value(events[2]).artifact.parts[0].content.value, "hi\n");
assert.equal(value(events[3]).status.state, TaskState.TASK_STATE_COMPLETED);

// Cancelling, and following what runs.
const begun = await client.sendMessage(ask("sleep 60", {}, { returnImmediately: true }));
const running = begun.payload ? begun.payload.value : begun;
const following = client.resubscribeTask({ tenant: "", id: running.id });
const first = await following.next();
assert.equal(kind(first.value), "task");
const cancelled = await client.cancelTask({ tenant: "", id: running.id, metadata: undefined });
assert.equal(cancelled.status.state, TaskState.TASK_STATE_CANCELED);
const seen = await all(following);
assert.equal(value(seen.at(-1)).status.state, TaskState.TASK_STATE_CANCELED);
await refused("TaskNotCancelableError", () =>
  client.cancelTask({ tenant: "", id: running.id, metadata: undefined }));
await refused("TaskNotFoundError", () =>
  client.getTask({ tenant: "", id: "no-such-task", historyLength: undefined }));

// Listing.
const listed = await client.listTasks({
  tenant: "", contextId: task.contextId, status: 0, pageSize: 10, pageToken: "",
  historyLength: undefined, statusTimestampAfter: undefined, includeArtifacts: true,
});
assert.equal(listed.totalSize, 1);
assert.equal(listed.tasks[0].id, task.id);

// An agent that asks back.
const curious = await connect("/agents/curious");
const asked = await all(curious.sendMessageStream(ask("tea")));
const question = value(asked.at(-1));
assert.equal(question.status.state, TaskState.TASK_STATE_INPUT_REQUIRED);
const on = await curious.sendMessage(ask("green", { taskId: question.taskId }));
const paused = on.payload ? on.payload.value : on;
assert.equal(paused.status.state, TaskState.TASK_STATE_AUTH_REQUIRED);
const last = await curious.sendMessage(ask("yes", { taskId: question.taskId }));
const done = last.payload ? last.payload.value : last;
assert.equal(done.status.state, TaskState.TASK_STATE_COMPLETED);
assert.equal(done.artifacts[0].parts[0].content.value, "tea green yes");

console.log("the official client agrees");
process.exit(0);
