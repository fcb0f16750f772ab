// Checks the signatures of a node's cards with the official JavaScript client of A2A.
//
// Arguments: the node's address, the token of a caller or nothing, and the paths of the cards. Packages are found
// below the folder of the variable A2A_PACKAGES.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(pathToFileURL(`${process.env.A2A_PACKAGES}/`));
const load = (name) => import(pathToFileURL(require.resolve(name)));
const { verifyAgentCardSignature } = await load("@a2a-js/sdk");
const { importJWK } = await load("jose");
// Each entry that doesn't fit is told of there.
console.debug = () => {};

const [url, token, ...paths] = process.argv.slice(2);
const headers = { "a2a-version": "1.0", ...(token && { authorization: `Bearer ${token}` }) };
const get = async (url) => {
  const answer = await fetch(url, { headers });
  assert.ok(answer.ok, `${url}: ${answer.status}`);
  return answer.json();
};
const verify = verifyAgentCardSignature(async (kid, jku) => {
  const { keys } = await get(jku);
  return importJWK(keys.find((key) => key.kid === kid), "ES256");
});
for (const path of paths) {
  const card = await get(`${url}${path}`);
  await verify(card);
  card.description += "!";
  await assert.rejects(verify(card), `${path}: a changed card is taken for a right one`);
}
for (const card of (await get(`${url}/agents`)).agents) await verify(card);
console.log("the signatures are right");
