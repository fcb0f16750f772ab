// A real issuer: `oidc-provider`, on loopback. It's told what to become by lines on its standard input,
// and answers each with one line: `rotate` (other keys), `down` (it answers nothing), `up`, `asked`
// (how often its keys were read). Its first line is its URL.
import { generateKeyPairSync } from 'node:crypto';
import { createRequire } from 'node:module';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const packages = createRequire(`${process.env.NODE_PACKAGES}/`);
const { default: Provider } = await import(pathToFileURL(packages.resolve('oidc-provider')));

const client = (client_id, groups) => ({
  client_id,
  client_secret: `${client_id}-secret`,
  grant_types: ['client_credentials'],
  redirect_uris: [],
  response_types: [],
  token_endpoint_auth_method: 'client_secret_post',
  groups,
});

// What a token is for, by the resource that it's asked for.
const resources = {
  'https://node.example/': { audience: 'neuroflow', accessTokenTTL: 600 },
  'https://node.example/brief': { audience: 'neuroflow', accessTokenTTL: 1 },
  'https://other.example/': { audience: 'other', accessTokenTTL: 600 },
};

// Standard output is for answers.
console.info = console.error;

let keys = 0;
let asked = 0;
let isDown = false;
let answer;

function begin(issuer) {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  keys += 1;
  const key = { ...privateKey.export({ format: 'jwk' }), kid: `key-${keys}`, use: 'sig', alg: 'RS256' };
  const provider = new Provider(issuer, {
    clients: [client('builder', ['dev', 'night shift']), client('visitor', [])],
    extraClientMetadata: { properties: ['groups'] },
    extraTokenClaims: (_context, token) => ({ groups: token.client.groups }),
    cookies: { keys: ['of no use here'] },
    jwks: { keys: [key] },
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_context, indicator) => ({
          scope: 'ask',
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: 'RS256' } },
          ...resources[indicator],
        }),
      },
    },
  });
  answer = provider.callback();
}

const server = createServer((request, response) => {
  if (request.url === '/jwks') asked += 1;
  answer(request, response);
});
server.on('connection', (socket) => {
  if (isDown) socket.destroy();
});
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  begin(issuer);
  console.log(issuer);
  const lines = createInterface({ input: process.stdin });
  lines.on('line', (line) => {
    if (line === 'rotate') begin(issuer);
    if (line === 'down') {
      isDown = true;
      server.closeAllConnections();
    }
    if (line === 'up') isDown = false;
    console.log(line === 'asked' ? asked : line);
  });
  lines.on('close', () => process.exit(0));
});
