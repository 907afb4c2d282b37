// Serves ../dist with the policy of the agent, and a cluster out of nothing behind it.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { fileURLToPath } from 'node:url';
import { cluster } from './fixture.mjs';

const dist = (name) => readFileSync(fileURLToPath(new URL(`../../dist/${name}`, import.meta.url)));
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const files = {
  '/': ['text/html; charset=utf-8', 'index.html'],
  '/page/page.js': ['text/javascript; charset=utf-8', 'page/page.js'],
  '/page/page.css': ['text/css; charset=utf-8', 'page/page.css'],
  '/page/icon.svg': ['image/svg+xml', 'page/icon.svg'],
};

const toml = 'peers = ["10.9.0.1", "10.9.0.2"]\nsecret = "file:cluster.key"\n\n[[vip]]\nname = "vip001"\naddress = "10.0.0.0/16"\n';

/** Keeps an address, or no longer; a dry run says which. */
function reserve(fake, method, path, body) {
  const dry = path.includes('dry_run');
  const asked = body ? JSON.parse(body) : null;
  const address = asked ? (asked.address ?? '10.20.0.103') : decodeURIComponent(path.split('/')[3].split('?')[0]);
  const place = fake.reservations.findIndex((one) => one.address === address);
  if (!dry && asked) fake.reservations.push({ address, vip: null, reserved_for: asked.for, given: false });
  if (!dry && !asked) fake.reservations.splice(place, 1);
  if (!dry) fake.state.config += 1;
  const edit = { node: 'lb1', revision: fake.state.config, dry_run: dry, valid: true, diff: ['reservations', `${asked ? '+' : '-'} address = "${address}"`], changes: [], problems: [], refused_here: null };
  return asked ? { address, pool: asked.pool, for: asked.for, edit } : edit;
}

/** How the fixture answers what changes something. */
function write(fake, method, path, body) {
  fake.state.calls.push({ method, path, body });
  if (path.startsWith('/v1/reservations')) return reserve(fake, method, path, body);
  if (path.includes('dry_run') && (/\/(move|hold|release|drain|disable|enable|weight)\?/.test(path) || path.startsWith('/v1/nodes/'))) return { dry_run: true, would: [`it was only asked: ${path.split('?')[0]}`], order: 'x' };
  if (path.includes('dry_run') || path.endsWith('/diff') || path.endsWith('/validate')) {
    const bad = JSON.stringify(body ?? '').includes('300.1');
    const problem = { code: 'V0101', severity: 'error', message: '10.0.300.1/24 is not an address', reason: 'a number of it is larger than 255', fix: 'write four numbers from 0 to 255', span: { line: 7, column: 11 } };
    return { node: 'lb1', revision: fake.state.config, dry_run: true, valid: !bad, diff: bad ? [] : ['vip/new', '+ name = "new"', '+ address = "10.0.30.1/24"'], changes: bad ? [] : ['vip new appeared'], problems: bad ? [problem] : [], refused_here: null };
  }
  if (path.startsWith('/v1/nodes/')) return { node: 'lb1', owned: 0 };
  if (path.startsWith('/v1/config') || path.startsWith('/v1/vips')) fake.state.config += 1;
  return { revision: fake.state.config, refused_here: null, order: { sentence: 'takes no new connections by order' } };
}

/** `readOnly`: every order and edit is refused, as on a socket for questions; `token`: asked for, as over TCP. */
export function serve(size, { readOnly = false, token = null } = {}) {
  const fake = cluster(size);
  const server = createServer((request, response) => {
    const url = new URL(request.url, 'http://localhost');
    const json = (value) => response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(value));
    const chunks = [];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('end', () => {
      const file = files[url.pathname];
      if (file) return response.writeHead(200, { 'content-type': file[0], 'content-security-policy': policy }).end(dist(file[1]));
      if (token && request.headers.authorization !== `Bearer ${token}`) {
        const refusal = { code: 'unauthenticated', title: 'this agent does not know who asks', detail: '', fix: 'send `Authorization: Bearer TOKEN`' };
        return response.writeHead(401, { 'content-type': 'application/problem+json' }).end(JSON.stringify(refusal));
      }
      const why = url.pathname.match(/^\/v1\/vips\/(.+)\/why$/);
      if (request.method !== 'GET' && readOnly) {
        const refusal = { code: 'read_only', title: 'this socket answers questions only', detail: '', fix: 'orders go to api.sock beside it' };
        return response.writeHead(403, { 'content-type': 'application/problem+json' }).end(JSON.stringify(refusal));
      }
      if (request.method !== 'GET') return json(write(fake, request.method, url.pathname + url.search, Buffer.concat(chunks).toString()));
      if (url.pathname === '/v1/status') return json(fake.status());
      if (url.pathname === '/v1/me') return json({ node: 'lb1', name: 'ann', by: 'kernel', uid: 1000, role: readOnly ? 'read' : 'admin', may: [] });
      if (url.pathname === '/v1/matrix') return json(fake.matrix());
      if (url.pathname === '/v1/budget') return json(fake.budget());
      if (url.pathname === '/v1/pools') return json({ node: 'lb1', revision: 7, pools: fake.pools() });
      if (url.pathname === '/v1/events') return json(fake.events());
      if (why) return json(fake.why(decodeURIComponent(why[1])));
      const ago = (ms) => Date.now() - ms;
      if (url.pathname === '/v1/config') {
        const entries = [{ path: 'vip/vip001', origin: { kind: 'file', line: 4 } }, { path: 'vip/vip002', origin: { kind: 'api', user: 'ann', at_ms: ago(60_000), revision: 7, hidden: false } }];
        return json({ node: 'lb1', revision: fake.state.config, in_force: fake.state.config, base: { path: '/etc/buoy/buoy.toml', digest: '0b00c0de' }, text: toml, entries, store: { kind: 'embedded', leader: 'lb2', voters: ['lb1', 'lb2', 'lb3'] } });
      }
      if (url.pathname === '/v1/config/history') {
        const revisions = [
          { revision: 6, user: 'root', node: 'lb1', at_ms: ago(600_000), reason: '', entries: ['vip/vip002'], diff: ['vip/vip002', '+ name = "vip002"', '+ address = "10.0.0.1/16"'] },
          { revision: 7, user: 'ann', node: 'lb2', at_ms: ago(60_000), reason: 'nearer to the clients', entries: ['vip/vip002'], diff: ['vip/vip002', '  name = "vip002"', '- prefer = ["lb1"]', '+ prefer = ["lb2", "lb1"]'] },
        ];
        return json({ node: 'lb1', revision: fake.state.config, revisions });
      }
      if (url.pathname.startsWith('/v1/config/vips/')) return json({ name: 'vip002', address: '10.0.0.1/16', prefer: ['lb2', 'lb1'] });
      const counted = url.pathname.match(/^\/v1\/services\/([^/]+)\/flows$/);
      if (counted) {
        const name = decodeURIComponent(counted[1]);
        const service = fake.status().vips.flatMap((vip) => vip.services).find((one) => one.name === name);
        const flows = { open: 40 + (fake.state.tick % 9), opened: fake.state.tick * 30, bytes: fake.state.tick * 90_000, source: 'the map of XDP' };
        return json({ node: 'lb1', service: name, engine: service.engine, backends: service.backends.map((one) => ({ backend: one.name, flows })) });
      }
      if (url.pathname === '/v1/path') return json({ node: 'lb1', from: url.searchParams.get('from'), to: url.searchParams.get('to'), protocol: 'tcp', vip: 'vip001', engine: 'XDP (eth0: driver)', ways: [{ of: 'any connection', verdict: 'sent', backend: 'web2', reason: 'in an IP packet to 10.1.0.21, to the Ethernet address 02:00:00:00:00:15 by eth0' }] });
      response.writeHead(404, { 'content-type': 'application/problem+json' }).end(JSON.stringify({ code: 'unknown_path', title: 'there is no such path', detail: '' }));
    });
  });
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve({ fake, server, url: `http://127.0.0.1:${server.address().port}` })));
}
