// 200 VIPs x 8 nodes x 1000 backends are drawn, searched and kept up to date; a small cluster has nothing that axe calls
// serious or critical, on any view, in light and dark. No time is asserted: what was measured is printed.
import { readFile } from 'node:fs/promises';
import { fail, open, violations } from './browser.mjs';
import { serve } from './serve.mjs';

const views = ['map', 'map/vip003', 'map/vip002', 'timeline', 'nodes', 'services/vip002%3A443%2Ftcp', 'health', 'path', 'pools/web', 'config', 'problems', 'events', 'budget'];

async function large() {
  const { server, url } = await serve();
  const { browser, page, faults } = await open(url);
  const started = Date.now();
  await page.goto(url);
  await page.locator('table.map tbody tr').nth(199).waitFor();
  const figures = [`map ${Date.now() - started}`];
  for (const view of views.slice(3)) {
    const from = Date.now();
    await page.evaluate((name) => (location.hash = `#/${name}`), view);
    await page.locator('h1').waitFor();
    if (view === 'health') await page.locator('.board tbody tr').nth(999).waitFor();
    figures.push(`${view.split('/')[0]} ${Date.now() - from}`);
  }
  // It answers to the keyboard while answers of this size come in.
  await page.evaluate(() => (location.hash = '#/map'));
  const from = Date.now();
  await page.keyboard.press('/');
  await page.keyboard.type('vip123');
  await page.waitForFunction(() => document.querySelectorAll('table.map tbody tr').length === 1);
  figures.push(`search ${Date.now() - from}`);
  await page.locator('#search').fill('');
  await page.locator('th.node button').first().click();
  const sentence = await page.locator('.headline p').textContent();
  if (!/If lb1 fails now, \d+ VIPs move/.test(sentence)) fail(`the projection says ${sentence}`);
  console.log(`FIGURES ${figures.join(' ms, ')} ms`);
  [...new Set(faults)].slice(0, 10).forEach(fail);
  await browser.close();
  server.close();
}

async function small() {
  const { server, url, fake } = await serve({ vips: 12, nodes: 5, backends: 4 });
  const { browser, page, faults } = await open(url);
  page.setDefaultTimeout(8000);
  await page.goto(url);
  await page.locator('table.map').waitFor();
  for (const theme of ['light', 'dark']) {
    // All the rest is the same in the dark.
    const rules = theme === 'dark' ? ['color-contrast', 'link-in-text-block'] : null;
    await page.locator('header select').selectOption(theme);
    for (const view of views) {
      await page.evaluate((name) => (location.hash = `#/${name}`), view);
      await page.locator('h1').waitFor();
      if (view === 'nodes') await hearing(page);
      if (view === 'budget') await promises(page);
      if (view === 'map/vip003') await page.locator('.drawer .routers tbody tr', { hasText: 'lb3' }).filter({ hasText: 'active' }).first().waitFor();
      if (view === 'path') {
        await page.getByLabel('Client').fill('203.0.113.7');
        await page.getByLabel('VIP and port').fill('10.0.0.0:443');
        await page.getByRole('button', { name: 'Ask' }).click();
        await page.locator('ol.path').waitFor();
        await counting(page);
      }
      for (const violation of await violations(page, rules)) fail(`${view} in ${theme}: ${violation}`);
      if (theme === 'light') await saved(page, view);
    }
    await edit(page, fake, theme, rules);
    await reserve(page, fake, theme, rules);
  }
  await narrow(page);
  [...new Set(faults)].slice(0, 10).forEach(fail);
  await browser.close();
  server.close();
}

/** Who kept the promise and who did not, the worst first; a key of its own leads there. */
async function promises(page) {
  const rows = page.locator('.budget tbody tr');
  await rows.first().locator('.state.bad', { hasText: '1 over the bound' }).waitFor();
  await rows.first().locator('.gap.over').waitFor({ state: 'attached' });
  const bad = await page.locator('.budget .gap.over').count();
  if (bad !== 1) fail(`${bad} gaps are over the bound`);
  await rows.filter({ hasText: 'vip003' }).filter({ hasText: 'VRRP decides about it' }).waitFor();
  await rows.filter({ hasText: 'vip001' }).locator('.slack .least').waitFor({ state: 'attached' });
  await page.keyboard.press('1');
  await page.locator('table.map').waitFor();
  await page.keyboard.press('-');
  await rows.first().waitFor();
}

/** The counters of where the packet goes move. */
async function counting(page) {
  const row = page.locator('.counters tbody tr', { hasText: 'web2' }).filter({ hasText: 'this packet' });
  await row.filter({ hasText: /\(\+[\d,]+\)/ }).waitFor();
  if ((await page.locator('.counters tbody tr').count()) !== 1) fail('counters of other backends are shown');
}

/** Every picture is saved as SVG that stands alone, and every table as CSV, with what is seen in them. */
const pictures = { map: 'vip007', timeline: 'vip007', nodes: 'both ways', 'services/vip002%3A443%2Ftcp': 'web3', health: 'HTTP 503', path: '203.0.113.7', 'pools/web': 'printer', budget: 'over the bound' };
const tables = { map: 'VIP,lb1', timeline: 'When,VIP,From,To', nodes: 'Node,State', 'services/vip002%3A443%2Ftcp': 'Backend,State,Weight', health: 'Backend,Service', 'pools/web': 'Address,VIP,Reserved for', problems: 'How bad,About', events: 'When,Kind', budget: 'VIP,Owner,Promise' };
async function saved(page, view) {
  const download = async (kind) => {
    const button = page.locator('.headline .save').first().getByRole('button', { name: kind });
    const [file] = await Promise.all([page.waitForEvent('download'), button.click()]);
    if (!/^buoy-edge-lb1-[a-z]+-\d{8}-\d{6}\.(svg|csv)$/.test(file.suggestedFilename())) fail(`${view} is saved as ${file.suggestedFilename()}`);
    return readFile(await file.path(), 'utf8');
  };
  if (pictures[view]) {
    const text = await download('SVG');
    const found = await page.evaluate((svg) => {
      const read = new DOMParser().parseFromString(svg, 'image/svg+xml');
      return { bad: read.querySelector('parsererror')?.textContent, text: read.documentElement.textContent, styled: read.querySelectorAll('[class], style, script').length, drawn: read.querySelectorAll('rect, line, path').length };
    }, text);
    if (found.bad || found.styled || found.drawn < 3 || !found.text.includes(pictures[view])) fail(`the picture of ${view}: ${JSON.stringify({ ...found, text: found.text.slice(0, 200) })}`);
  }
  if (tables[view]) {
    const [head, ...rows] = (await download('CSV')).trimEnd().split('\r\n');
    const columns = (line) => line.replace(/"([^"]|"")*"/g, 'q').split(',').length;
    if (!head.startsWith(tables[view]) || rows.length === 0 || rows.some((row) => columns(row) !== columns(head))) fail(`the table of ${view}: ${[head, ...rows].slice(0, 4).join(' | ')}`);
  }
}

/** A VIP is added: wrong input is said in the dialog, the difference is shown before anything is applied. */
async function edit(page, fake, theme, rules) {
  await page.evaluate(() => (location.hash = '#/config'));
  await page.getByRole('button', { name: 'Add a VIP…' }).click();
  await page.getByLabel('Name', { exact: true }).fill('new');
  await page.getByLabel('Address with its prefix').fill('10.0.300.1/24');
  const apply = page.getByRole('button', { name: 'Add it' });
  if (await apply.isEnabled()) fail('it can be applied before it was looked at');
  await page.getByRole('button', { name: 'Preview' }).click();
  await page.locator('.preview .bad', { hasText: 'is not an address' }).waitFor();
  if (await apply.isEnabled()) fail('what is invalid can be applied');
  await page.getByLabel('Address with its prefix').fill('10.0.30.1/24');
  await page.getByRole('button', { name: 'Preview' }).click();
  await page.locator('.diff .plus').first().waitFor();
  for (const violation of await violations(page, rules)) fail(`the dialog in ${theme}: ${violation}`);
  await apply.click();
  await page.locator('.toast', { hasText: 'new is in the configuration' }).waitFor();
  const { method, path, body } = fake.state.calls.at(-1);
  const expected = JSON.stringify({ name: 'new', address: '10.0.30.1/24' });
  if (method !== 'POST' || path !== '/v1/vips' || body !== expected) fail(`sent ${method} ${path} ${body}`);
}

/** Who hears whom, by each one's own word; what is not known is not guessed. */
async function hearing(page) {
  const cell = (from, to) => page.locator('.matrix tbody tr', { has: page.locator(`th:text-is("${from}")`) }).locator('td').nth(Number(to.slice(2)) - 1);
  const is = async (from, to, kind) => {
    await page.locator('.matrix td.one_way').first().waitFor();
    const classes = await cell(from, to).getAttribute('class');
    if (!classes?.split(' ').includes(kind)) fail(`that ${from} hears ${to} is shown as ${classes}`);
  };
  await is('lb2', 'lb4', 'one_way');
  await is('lb4', 'lb2', 'silent');
  await is('lb3', 'lb2', 'lossy');
  await is('lb1', 'lb2', 'good');
  await is('lb5', 'lb2', 'unknown');
  await is('lb2', 'lb2', 'self');
  await page.locator('.headline', { hasText: 'lb2 hears lb4, and lb4 does not hear lb2' }).waitFor();
  await page.locator('.routers tr', { hasText: 'wrong password 12' }).first().waitFor();
  // Of another node it is known by its own word that it is cordoned.
  await page.getByRole('button', { name: 'Uncordon lb2' }).waitFor();
}

/** On a telephone nothing but tables and pictures is wider than the screen, and what was asked for is seen. */
async function narrow(page) {
  await page.setViewportSize({ width: 390, height: 844 });
  for (const view of views) {
    await page.evaluate((name) => (location.hash = `#/${name}`), view);
    await page.locator('h1').waitFor();
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    if (wide > 0) fail(`${view} is ${wide} px wider than 390`);
    const shown = await page.locator('nav [aria-current]').evaluate((link) => link.getBoundingClientRect().left >= 0 && link.getBoundingClientRect().right <= innerWidth + 1);
    if (!shown) fail(`of ${view} the name is not seen among the views`);
    if (view.startsWith('map/') && (await page.locator('.drawer h2').boundingBox()).y > 844) fail(`${view} opens out of sight`);
  }
  await page.setViewportSize({ width: 1440, height: 900 });
}

/** An address is kept for somebody and released; how full a pool is can be seen. */
async function reserve(page, fake, theme, rules) {
  await page.evaluate(() => (location.hash = '#/pools/web'));
  await page.getByRole('button', { name: 'Reserve an address of small' }).click({ force: true });
  await page.locator('.toast.bad', { hasText: 'small has no address left' }).waitFor();
  await page.locator('.pools tr', { hasText: 'small' }).locator('.state.bad', { hasText: 'no address left' }).waitFor();
  await page.getByRole('button', { name: 'Reserve an address of web' }).click();
  await page.getByLabel('For', { exact: true }).fill('camera');
  await page.getByLabel('Reason').fill(`in ${theme}`);
  if (await page.getByRole('button', { name: 'Reserve it' }).isEnabled()) fail('it can be reserved before it was looked at');
  await page.getByRole('button', { name: 'Preview' }).click();
  await page.locator('.preview', { hasText: '10.20.0.103 would be kept for camera' }).waitFor();
  for (const violation of await violations(page, rules)) fail(`the reservation in ${theme}: ${violation}`);
  await page.getByRole('button', { name: 'Reserve it' }).click();
  await page.locator('.pools .backends tr', { hasText: 'camera' }).waitFor();
  const expected = JSON.stringify({ pool: 'web', for: 'camera', reason: `in ${theme}` });
  if (fake.state.calls.at(-1).body !== expected) fail(`reserved by ${fake.state.calls.at(-1).body}`);
  await page.getByRole('button', { name: 'Release 10.20.0.103' }).click();
  await page.getByLabel('Reason').fill('gone');
  await page.getByRole('button', { name: 'Preview' }).click();
  await page.getByRole('button', { name: 'Release it' }).click();
  await page.locator('.pools .backends tr', { hasText: 'camera' }).waitFor({ state: 'detached' });
  const { method, path } = fake.state.calls.at(-1);
  if (method !== 'DELETE' || path !== '/v1/reservations/10.20.0.103?reason=gone') fail(`released by ${method} ${path}`);
}

/** Who may only look sees every button, and why it does nothing. */
async function readOnly() {
  const { server, url } = await serve({ vips: 3, nodes: 3, backends: 2 }, { readOnly: true });
  const { browser, page } = await open(url);
  page.setDefaultTimeout(8000);
  await page.goto(`${url}/#/map/vip001`);
  for (const name of ['Move…', 'Hold…', 'Remove…']) {
    const button = page.locator('.drawer button[aria-disabled=true]', { hasText: new RegExp(`^${name}$`) });
    await button.waitFor();
    const why = await button.getAttribute('title');
    // Whether an edit is allowed is tried without effect; of orders it is asked who asks.
    const reason = name === 'Remove…' ? 'answers questions only' : 'ann may only look: his role on lb1 is read';
    if (!why?.includes(reason)) fail(`${name} is disabled because ${why}`);
  }
  await page.getByRole('button', { name: 'Move…', exact: true }).click({ force: true });
  await page.locator('.toast.bad', { hasText: 'Not possible' }).waitFor();
  await browser.close();
  server.close();
}

/** Over TCP the page asks for a token, once. */
async function withToken() {
  const { server, url } = await serve({ vips: 3, nodes: 3, backends: 2 }, { token: 's3cr3t' });
  const { browser, page } = await open(url);
  page.setDefaultTimeout(8000);
  await page.goto(url);
  await page.getByLabel('Token').fill('s3cr3t');
  await page.getByRole('button', { name: 'Go on' }).click();
  await page.locator('table.map').waitFor();
  await page.getByRole('link', { name: 'Configuration' }).waitFor();
  await page.reload();
  await page.locator('table.map').waitFor();
  await browser.close();
  server.close();
}

try {
  await withToken();
  await large();
  await readOnly();
  await small();
} catch (error) {
  fail(error.message);
}
console.log(process.exitCode ? 'ENDED BADLY' : 'ENDED WELL');
process.exit();
