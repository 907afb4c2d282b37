// Clicks through the page of a real agent. Usage: flows.mjs URL; asks for faults on its standard output, hears of them on
// its standard input.
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fail, open } from './browser.mjs';

const [url] = process.argv.slice(2);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
/** Has the test do something; answers when it was done, in milliseconds since 1970. */
async function have(order) {
  console.log(order);
  return Number((await lines.next()).value);
}

const { browser, page, faults } = await open(url);
page.setDefaultTimeout(8000);
const cell = (vip, node) => page.locator(`table.map tbody tr`, { has: page.locator(`th a:text-is("${vip}")`) }).locator('td').nth(Number(node.slice(1)) - 1);
/** To look at, in the folder of BUOY_PICTURES. */
const picture = (name) => process.env.BUOY_PICTURES && page.screenshot({ path: join(process.env.BUOY_PICTURES, `${name}.png`) });
/** Presses a button that asks, and gives the order when the agent has said what would come of it. */
async function order(button, verb, done) {
  await page.getByRole('button', { name: button, exact: true }).click();
  await page.locator('dialog .rehearsal p').first().waitFor();
  await page.getByRole('button', { name: verb, exact: true }).click();
  await says(page.locator('.toast'), done);
}
/** Fills a form for an edit, looks at what it would change, and applies it. */
async function edit(button, fields, expected, verb, done) {
  await page.getByRole('button', { name: button, exact: true }).click();
  for (const [label, value] of Object.entries(fields)) {
    const field = page.getByLabel(label, { exact: true });
    if (await field.evaluate((one) => one.tagName === 'SELECT')) await field.selectOption(value);
    else await field.fill(value);
  }
  await page.getByLabel('Reason').fill('a test');
  await page.getByRole('button', { name: 'Preview' }).click();
  await says(page.locator('dialog .preview'), expected);
  await page.getByRole('button', { name: verb, exact: true }).click();
  await says(page.locator('.toast'), done);
}
const says = (locator, text) => locator.filter({ hasText: text }).first().waitFor();

try {
  // The address lets in, and the page is there with its policy.
  const response = await page.goto(url);
  if (!response.headers()['content-security-policy']?.includes("default-src 'none'")) fail('no policy');
  if (page.url().includes('token')) fail(`the token stays in the address: ${page.url()}`);
  await says(cell('web', 'n1'), 'owner');

  // What if: pointing at a node says where its VIP would go.
  await page.locator('th.node button').first().focus();
  await says(page.locator('.headline p'), 'If n1 fails now, 1 VIP moves (1 to n2)');

  // Move it, and see it there.
  await page.getByRole('link', { name: 'web', exact: true }).click();
  await says(page.locator('.answer'), 'n1 has owned web');
  await picture('vip');
  await page.getByRole('button', { name: 'Move…', exact: true }).click();
  await page.getByLabel('To', { exact: true }).selectOption('n2');
  await page.getByLabel('Reason').fill('a test');
  // What would come of it is asked of the agent, before anything is done.
  await says(page.locator('dialog .rehearsal'), 'As things are');
  await says(page.locator('dialog .rehearsal'), 'n2');
  await page.getByRole('button', { name: 'Move it' }).click();
  await says(cell('web', 'n2'), 'owner');
  await says(page.locator('.toast'), 'on its way to n2');
  // An order is for its owner, and is given here all the same.
  await page.getByRole('button', { name: 'Hold…', exact: true }).click();
  await page.getByRole('button', { name: 'Hold it' }).click();
  await says(page.locator('.toast'), 'web is held on n2');
  // A hold is taken back by a release, and the VIP goes home; then it is moved again.
  await page.locator('.drawer .state.warn', { hasText: 'held' }).waitFor();
  await order('Release…', 'Release it', 'web is free to move');
  await says(cell('web', 'n1'), 'owner');
  await page.getByRole('button', { name: 'Move…', exact: true }).click();
  await page.getByLabel('To', { exact: true }).selectOption('n2');
  await page.getByRole('button', { name: 'Move it' }).click();
  await says(cell('web', 'n2'), 'owner');
  await page.getByRole('link', { name: 'Close' }).click();

  // Why and how n2 took it is known to n2, and told here.
  await page.goto(`${new URL(url).origin}/#/timeline`);
  await page.getByRole('button', { name: /^Details/ }).first().click();
  await says(page.locator('.drawer h2'), 'web went to n2');
  await page.locator('.drawer table.phases').waitFor();
  await says(page.locator('.drawer h3'), 'What n2 saw');
  await picture('elsewhere');
  await page.goto(`${new URL(url).origin}/#/map/web`);
  await says(page.locator('.answer'), 'n2 took it over');
  await page.getByRole('link', { name: 'Close' }).click();

  // A VIP is added: what is wrong is said, the difference is shown, and somebody who was faster is noticed.
  await page.goto(`${new URL(url).origin}/#/config`);
  await page.getByRole('button', { name: 'Add a VIP…' }).click();
  await page.getByLabel('Name', { exact: true }).fill('db');
  await page.getByLabel('Address with its prefix').fill('10.77.300.1/24');
  await page.getByRole('button', { name: 'Preview' }).click();
  await says(page.locator('dialog .bad, dialog .error'), '10.77.300.1');
  await page.getByLabel('Address with its prefix').fill('10.77.0.101/24');
  await page.getByRole('button', { name: 'Preview' }).click();
  await says(page.locator('.diff'), '+ address = "10.77.0.101/24"');
  await page.getByRole('button', { name: 'Add it' }).click();
  await says(page.locator('.toast'), 'db is in the configuration');
  await picture('config');
  await page.goto(`${new URL(url).origin}/#/map/db`);
  await page.locator('td.owner').nth(1).waitFor();
  await page.getByRole('button', { name: 'Change…' }).click();
  await page.getByLabel('Preferred nodes').fill('n3');
  await page.getByRole('button', { name: 'Preview' }).click();
  await says(page.locator('.diff'), 'prefer');
  const faster = await page.evaluate(async () => {
    const headers = { 'content-type': 'application/json' };
    return (await fetch('/v1/vips/db', { method: 'PATCH', headers, body: '{"prefer":["n2"]}' })).status;
  });
  if (faster !== 200) fail(`the faster edit was refused: ${faster}`);
  await page.getByRole('button', { name: 'Apply' }).click();
  await says(page.locator('dialog .error'), 'Somebody changed it meanwhile');
  await page.getByRole('button', { name: 'Cancel' }).click();
  await page.getByRole('button', { name: 'Remove…' }).click();
  await page.getByRole('button', { name: 'Preview' }).click();
  await says(page.locator('.diff'), '- name = "db"');
  await page.getByRole('button', { name: 'Remove it' }).click();
  await says(page.locator('.toast'), 'db is removed');

  // A backend is drained and put back.
  await page.goto(`${new URL(url).origin}/#/services/web%3A80%2Ftcp`);
  await page.getByRole('button', { name: 'Drain web1' }).click();
  await says(page.locator('dialog .says'), 'gets no new connections');
  await page.getByRole('button', { name: 'Drain it' }).click();
  await says(page.locator('.backends tr', { hasText: 'web1' }), 'drain');
  await picture('services');
  await order('Enable web1', 'Enable it', 'web1 of web:80/tcp');
  await page.getByRole('button', { name: 'Drain web1' }).waitFor();
  // So it is disabled and weighed, and one is added, changed and removed.
  await order('Disable web1', 'Disable it', 'web1 of web:80/tcp');
  await says(page.locator('.backends tr', { hasText: 'web1' }), 'maint');
  await order('Enable web1', 'Enable it', 'web1 of web:80/tcp');
  await order('Weigh web1', 'Weigh it', 'web1 of web:80/tcp');
  await edit('Add a backend…', { Name: 'web3', 'Address and port': '10.77.0.21:81' }, '10.77.0.21:81', 'Add it', 'web3 is a backend of web:80/tcp');
  await page.getByRole('button', { name: 'Change web3' }).waitFor();
  await edit('Change web3', { Weight: '7' }, 'weight', 'Apply', 'web3 is changed');
  await edit('Remove web3', {}, 'web3', 'Remove it', 'web3 is removed from web:80/tcp');
  // A service is bound to the VIP and taken off it again.
  await page.goto(`${new URL(url).origin}/#/map/web`);
  await edit('Add a service…', { Port: '8080/tcp', 'Backends, one a line': 'web1 10.77.0.21:80\nweb2 10.77.0.22:80' }, '8080/tcp', 'Add it', 'web has a service on 8080/tcp');
  await page.goto(`${new URL(url).origin}/#/services/web%3A8080%2Ftcp`);
  await edit('Remove the service…', {}, '8080/tcp', 'Remove it', 'web:8080/tcp is removed');
  await page.locator('.services tbody.open').waitFor({ state: 'detached' });

  // An address is reserved and released, and a VIP gets one of the pool.
  await page.goto(`${new URL(url).origin}/#/pools/more`);
  await edit('Reserve an address of more', { For: 'printer', Address: '10.77.0.151' }, '10.77.0.151 would be kept for printer', 'Reserve it', '10.77.0.151 is kept for printer');
  await edit('Release 10.77.0.151', {}, '10.77.0.151', 'Release it', '10.77.0.151 is free');
  await page.goto(`${new URL(url).origin}/#/config`);
  await edit('Add a VIP…', { Name: 'shop', 'Or from a pool': 'more' }, '+ pool = "more"', 'Add it', 'shop is in the configuration');
  await page.goto(`${new URL(url).origin}/#/pools/more`);
  await says(page.locator('.pools .backends tr', { hasText: 'shop' }), '10.77.0.15');
  await picture('pools');
  // Why each was done is in the history, and all of it can be undone.
  await page.goto(`${new URL(url).origin}/#/config`);
  await says(page.locator('tr', { hasText: 'shop' }), 'a test');
  await page.getByRole('button', { name: /^Go back to revision/ }).first().waitFor();
  const [latest, before] = await page.locator('button[aria-label^="Go back to revision"]').all();
  if ((await latest.getAttribute('aria-disabled')) !== 'true') fail('one can go back to what is');
  const revision = (await before.getAttribute('aria-label')).split(' ').at(-1);
  await edit(`Go back to revision ${revision}`, {}, 'shop', 'Go back', `that of revision ${revision} again`);

  // Its owner dies: the map shows who has it now, and how soon after that is measured by the clock of this host.
  await page.goto(`${new URL(url).origin}/#/map`);
  await says(cell('web', 'n2'), 'owner');
  await page.evaluate(() => {
    const seen = () => [...document.querySelectorAll('table.map td.owner')].some((td) => td.parentElement.querySelector('th a')?.textContent === 'web' && td.cellIndex !== 2);
    window.moved = new Promise((resolve) => {
      const observer = new MutationObserver(() => seen() && (observer.disconnect(), resolve(Date.now())));
      observer.observe(document.querySelector('table.map'), { subtree: true, childList: true, attributes: true, characterData: true });
    });
  });
  const killed = await have('KILL n2');
  const shown = await page.evaluate(() => window.moved);
  const events = await page.evaluate(async () => (await (await fetch('/v1/events?n=200')).json()).events);
  const owned = events.findLast((event) => event.vip === 'web' && ['acquired', 'owner_heard'].includes(event.kind) && event.at >= killed - 50);
  console.log(`FIGURES shown ${shown - killed} ms after the kill, ${shown - (owned?.at ?? NaN)} ms after the agent knew`);
  if (!owned || shown - owned.at > 3000) fail(`shown ${shown - owned?.at} ms after the agent knew`);
  const told = await page.locator('[role=status].hidden').textContent();
  if (!/web is on n[13] now/.test(told)) fail(`a screen reader hears ${JSON.stringify(told)}`);

  // The timeline has it, with its evidence.
  await page.goto(`${new URL(url).origin}/#/timeline`);
  await page.getByRole('button', { name: /^Details/ }).first().click();
  await says(page.locator('.drawer h2'), 'web went to');
  await picture('timeline');

  // So has the budget: nobody had it for a while, within the bound or not, and its owner's lease has slack.
  await page.keyboard.press('-');
  const web = page.locator('.budget tbody tr', { has: page.locator('th a:text-is("web")') });
  await web.locator('.gap').first().waitFor({ state: 'attached' });
  const kept = await page.evaluate(async () => (await (await fetch('/v1/budget')).json()).vips.find((vip) => vip.vip === 'web'));
  if (!(kept.gaps > 0 && kept.gap_p99_ms > 0 && kept.availability < 1 && kept.known_ms > kept.unserved_ms)) fail(`the budget of web: ${JSON.stringify(kept)}`);
  console.log(`FIGURES web had no owner for ${kept.latest_gaps_ms.map((gap) => gap.toFixed(1)).join(', ')} ms`);
  await picture('budget');

  // What a packet would meet, and the counters of where it could go.
  await page.goto(`${new URL(url).origin}/#/path`);
  await page.getByLabel('Client').fill('10.77.0.200');
  await page.getByLabel('VIP and port').fill('10.77.0.100:80');
  await page.getByRole('button', { name: 'Ask' }).click();
  await says(page.locator('.counters tbody tr'), 'web');
  await picture('path');

  // This node is drained and put back.
  await page.goto(`${new URL(url).origin}/#/nodes`);
  await page.getByRole('button', { name: 'Drain n1' }).click();
  await page.getByRole('button', { name: 'Drain it' }).click();
  await says(page.locator('.banner'), 'n1 is drained');
  await picture('nodes');
  await page.getByRole('button', { name: 'Undrain n1' }).click();
  await page.getByRole('button', { name: 'Put it back' }).click();
  await page.locator('.banner').waitFor({ state: 'detached' });

  // It is cordoned, and takes again.
  await page.getByRole('button', { name: 'Cordon n1' }).click();
  await says(page.locator('dialog .says'), 'only if no other node can');
  await page.getByRole('button', { name: 'Cordon it' }).click();
  await says(page.locator('.banner'), 'n1 is cordoned');
  await page.getByRole('button', { name: 'Uncordon n1' }).click();
  await page.getByRole('button', { name: 'Uncordon it' }).click();
  await page.locator('.banner').waitFor({ state: 'detached' });

  // So is another node, by way of this one; and who hears whom is known of all that live.
  await page.locator('.matrix tr', { has: page.locator('th:text-is("n3")') }).locator('td.good').first().waitFor();
  await says(page.locator('p', { hasText: 'Rows that are not known' }), 'n2');
  await picture('matrix');
  await order('Cordon n3', 'Cordon it', 'n3 is cordoned');
  await order('Uncordon n3', 'Uncordon it', 'n3 takes VIPs again');
  await order('Drain n3', 'Drain it', 'n3 is drained');
  await order('Undrain n3', 'Put it back', 'n3 takes part again');

  // When the agent is gone, the browser itself complains of what it asked in vain. So it does of the edit that came too
  // late, and where the page asked about something that was removed at that moment.
  const removed = ['/v1/vips/db/', '/v1/services/web%3A8080%2Ftcp/'];
  const late = (fault) => fault.includes('412') || (fault.includes('404') && removed.some((path) => fault.includes(path)));
  for (const fault of faults.filter((fault) => !late(fault))) fail(fault);
  // The agent dies: what is shown is said to be old.
  await have('KILL n1');
  await says(page.locator('header .live'), 'stale since');
} catch (error) {
  const failed = join(tmpdir(), 'buoy-page-failed.png');
  await page.screenshot({ path: failed }).catch(() => undefined);
  fail(`${error.message}; what it saw last is in ${failed}`);
}
console.log(process.exitCode ? 'ENDED BADLY' : 'ENDED WELL');
await browser.close();
process.exit();
