// Edits of the configuration: shown as a difference before they are applied, and refused when somebody was faster.
import { Refused, asker, get, part, send } from './ask';
import { dialog, words, type EditReply, type Field, type Preview, type Values } from './dialog.svelte';
import { live } from './live.svelte';
import type { Backend, Pool, Service, Vip } from './types';

export interface Entry {
  path: string;
  origin: { kind: 'file'; line: number } | { kind: 'api'; user: string; at_ms: number; revision: number; hidden: boolean };
}

export interface Configuration {
  node: string;
  revision: number;
  in_force: number;
  base: { path: string; digest: string };
  text: string;
  entries: Entry[];
  store: { kind: string; leader: string | null; voters: string[] };
}

export interface Revision {
  revision: number;
  at_ms: number;
  user: string;
  node: string;
  reason: string;
  entries: string[];
  diff: string[];
}

class Edits {
  configuration = $state.raw<Configuration | null>(null);
  /** Why this user may edit nothing; null: he may, or the agent has not been asked yet. */
  forbidden = $state<string | null>(null);
  private rightsOf: string | null = null;
  /** The latest first. */
  history = $state.raw<Revision[]>([]);

  async read(): Promise<void> {
    try {
      this.configuration = await get<Configuration>('/v1/config');
      this.history = (await get<{ revisions: Revision[] }>('/v1/config/history')).revisions.reverse();
      if (this.rightsOf !== asker() && this.configuration.store.kind !== 'none') await this.askRights(this.configuration.text);
    } catch (error) {
      // An agent without edits: the file is edited on every host.
      if (error instanceof Refused && error.problem.status === 404) this.configuration = null;
    }
  }

  /** Tries, without doing it, to leave all as it is: who may not do that may edit nothing. */
  private async askRights(text: string): Promise<void> {
    this.rightsOf = asker();
    this.forbidden = await send('POST', '/v1/config/apply?dry_run=1', { text }).then(
      () => null,
      (error: unknown) => (error instanceof Refused && error.problem.status === 403 ? error.message : null),
    );
  }

  /** Whether there is anything to edit with. */
  get able(): boolean {
    return this.configuration !== null;
  }

  /** As `If-Match` has it. */
  get match(): string {
    return `"${this.configuration?.revision ?? 0}"`;
  }
}

export const edits = new Edits();

export function whyNotEdit(): string | null {
  const store = edits.configuration?.store;
  if (!store) return 'this agent takes no edits: edit the file on every host, then run buoy reload';
  if (store.kind === 'none') return 'the file says store = "none": edit it on every host, then run buoy reload';
  return edits.forbidden ?? live.forbidden;
}

/** A field's text as a list: names or addresses, parted by commas or spaces. */
function list(text: string | undefined): string[] {
  return (text ?? '').split(/[\s,]+/).filter(Boolean);
}

interface Edit {
  title: string;
  says: (values: Values) => string[];
  fields: Field[];
  verb: string;
  danger?: boolean;
  wide?: boolean;
  method: string;
  target: (values: Values) => string;
  body?: (values: Values) => unknown;
  done: (values: Values) => string;
}

/** What came of an edit that was taken. */
export async function finish(edited: EditReply, done: string): Promise<string> {
  await edits.read();
  if (edited.refused_here) throw new Error(`It was taken as revision ${edited.revision}, but ${live.me} could not put it into force: ${edited.refused_here}`);
  return `${done} (revision ${edited.revision})`;
}

const reason: Field = { name: 'reason', label: 'Reason', kind: 'text', value: '', hint: 'for the history' };

/** Every edit has the same course: read the revision, ask for the difference, apply it to that revision. */
async function edit(what: Edit): Promise<void> {
  await edits.read();
  const match = edits.match;
  const request = <T>(values: Values, dry: boolean) => {
    const query = new URLSearchParams();
    if (dry) query.set('dry_run', '1');
    if (values.reason) query.set('reason', values.reason);
    const asked = query.size ? `?${query}` : '';
    return send<T>(what.method, what.target(values) + asked, what.body?.(values), match);
  };
  dialog.open({
    title: what.title,
    says: what.says,
    fields: [...what.fields, reason],
    verb: what.verb,
    danger: what.danger ?? false,
    wide: what.wide ?? false,
    preview: (values) => request<Preview>(values, true),
    run: async (values) => finish(await request<EditReply>(values, false), what.done(values)),
  });
}

const everywhere = 'It is validated, then kept on every node of the cluster, or on none.';

/** Pools that a VIP can ask for an address. */
function poolField(all: Pool[]): Field[] {
  const able = all.filter((pool) => pool.gives !== 'each');
  if (able.length === 0) return [];
  const named = able.map((pool) => ({ value: pool.name, label: `${pool.name} (${pool.free} free of ${pool.size})` }));
  const any = able.some((pool) => pool.gives === 'auto') ? [{ value: '*', label: 'any pool that gives to all' }] : [];
  return [{ name: 'pool', label: 'Or from a pool', kind: 'choice', value: '', choices: [{ value: '', label: 'no pool: the address above' }, ...any, ...named], hint: 'without an address, a free one of it' }];
}

function vipFields(vip: Vip | null, pools: Pool[] = []): Field[] {
  const prefer = vip ? [...vip.candidates].filter((c) => c.preferred !== null).sort((a, b) => a.preferred! - b.preferred!) : [];
  return [
    ...(vip ? [] : [{ name: 'name', label: 'Name', kind: 'text' as const, value: '', required: true, placeholder: 'web' }]),
    { name: 'address', label: 'Address with its prefix', kind: 'text', value: vip?.addresses[0]?.address ?? '', required: poolField(pools).length === 0, placeholder: '10.0.0.100/24' },
    ...poolField(pools),
    { name: 'prefer', label: 'Preferred nodes, the best first', kind: 'text', value: prefer.map((c) => c.node).join(', '), hint: 'empty: no preference; the VIPs are spread', placeholder: live.status?.nodes.map((n) => n.name).join(', ') ?? '' },
    { name: 'safety', label: 'Safety', kind: 'choice', value: vip?.safety ?? 'exclusive', choices: [{ value: 'exclusive', label: 'exclusive: never two owners' }, { value: 'available', label: 'available: rather two owners than none' }] },
  ];
}

function vipBody(values: Values, before: Vip | null): Record<string, unknown> {
  const table: Record<string, unknown> = {};
  if (!before) table.name = values.name?.trim();
  const address = values.address?.trim() ?? '';
  if (address ? address !== before?.addresses[0]?.address : !values.pool) table.address = address;
  if (values.pool) table.pool = values.pool;
  const preferred = list(values.prefer);
  const old = before ? list(vipFields(before).find((field) => field.name === 'prefer')?.value) : [];
  if (preferred.join() !== old.join()) table.prefer = preferred;
  if (before ? values.safety !== before.safety : values.safety !== 'exclusive') table.safety = values.safety;
  return table;
}

export async function addVip(): Promise<void> {
  // An agent that knows no pools has none.
  const pools = await get<{ pools: Pool[] }>('/v1/pools').then((reply) => reply.pools, () => []);
  return edit({
    title: 'Add a VIP',
    says: () => [everywhere, 'Its best node takes the address at once.'],
    fields: vipFields(null, pools),
    verb: 'Add it',
    method: 'POST',
    target: () => '/v1/vips',
    body: (values) => vipBody(values, null),
    done: (values) => `${values.name} is in the configuration`,
  });
}

export function changeVip(vip: Vip): Promise<void> {
  return edit({
    title: `Change ${vip.name}`,
    says: () => [everywhere, 'What is not in this form stays as it is.'],
    fields: vipFields(vip),
    verb: 'Apply',
    method: 'PATCH',
    target: () => `/v1/vips/${part(vip.name)}`,
    body: (values) => vipBody(values, vip),
    done: () => `${vip.name} is changed`,
  });
}

export function removeVip(vip: Vip): Promise<void> {
  const services = vip.services.map((service) => service.name);
  return edit({
    title: `Remove ${vip.name}`,
    says: () => [
      `${vip.owner ?? 'Its owner'} gives up ${vip.addresses.map((a) => a.address).join(', ')}, and nobody takes it: its clients are refused from then on.`,
      ...(services.length ? [`Its services go with it: ${services.join(', ')}.`] : []),
    ],
    fields: [],
    verb: 'Remove it',
    danger: true,
    method: 'DELETE',
    target: () => `/v1/vips/${part(vip.name)}`,
    done: () => `${vip.name} is removed`,
  });
}

interface WrittenService {
  port?: unknown;
  [key: string]: unknown;
}

/** The services that a VIP is written with; undefined: they cannot be read, which was said. */
async function written(vip: Vip): Promise<WrittenService[] | undefined> {
  try {
    return (await get<{ service?: WrittenService[] }>(`/v1/config/vips/${part(vip.name)}`)).service ?? [];
  } catch (error) {
    dialog.complain(words(error));
    return undefined;
  }
}

export async function addService(vip: Vip): Promise<void> {
  const before = await written(vip);
  if (!before) return;
  const modes = { kernel: 'kernel: nftables forwards packets', proxy: 'proxy: the agent accepts and connects anew', xdp: 'xdp: before the kernel’s network stack' };
  return edit({
    title: `Add a service to ${vip.name}`,
    says: () => [everywhere, 'Its owner forwards what comes to this port of the VIP to the backends. What it does not answer itself any more, they do.'],
    fields: [
      { name: 'port', label: 'Port', kind: 'text', value: '', required: true, placeholder: '443/tcp' },
      { name: 'mode', label: 'Mode', kind: 'choice', value: 'kernel', choices: Object.entries(modes).map(([value, label]) => ({ value, label })) },
      { name: 'backends', label: 'Backends, one a line', kind: 'area', value: '', required: true, hint: 'as in: web1 10.0.0.21:8443 weight=10' },
    ],
    verb: 'Add it',
    method: 'PATCH',
    target: () => `/v1/vips/${part(vip.name)}`,
    body: (values) => {
      const backends = (values.backends ?? '').split('\n').map((line) => line.trim()).filter(Boolean);
      const service = { port: values.port?.trim(), backends, ...(values.mode === 'kernel' ? {} : { mode: values.mode }) };
      return { service: [...before, service] };
    },
    done: (values) => `${vip.name} has a service on ${values.port?.trim()}`,
  });
}

export function removeService(vip: Vip, service: Service): Promise<void> {
  return edit({
    title: `Remove ${service.name}`,
    says: () => [`Its connections are cut, and clients of ${service.port} are refused or answered by the owner itself from then on.`, `${vip.name} stays where it is.`],
    fields: [],
    verb: 'Remove it',
    danger: true,
    method: 'DELETE',
    target: () => `/v1/services/${part(service.name)}`,
    done: () => `${service.name} is removed`,
  });
}

const backendPath = (service: Service, name: string) => `/v1/services/${part(service.name)}/backends/${part(name)}`;

function backendFields(backend: Backend | null): Field[] {
  return [
    ...(backend ? [] : [{ name: 'name', label: 'Name', kind: 'text' as const, value: '', required: true, placeholder: 'web3' }]),
    { name: 'address', label: 'Address and port', kind: 'text', value: backend?.address ?? '', required: true, placeholder: '10.0.0.23:8443' },
    { name: 'weight', label: 'Weight', kind: 'text', value: String(backend?.weight ?? 1), hint: 'its share relative to the others' },
  ];
}

function backendBody(values: Values, before: Backend | null): Record<string, unknown> {
  const table: Record<string, unknown> = {};
  if (values.address?.trim() !== before?.address) table.address = values.address?.trim();
  if (before ? values.weight !== String(before.weight) : values.weight && values.weight !== '1') table.weight = Number(values.weight);
  return table;
}

export function addBackend(service: Service): Promise<void> {
  return edit({
    title: `Add a backend to ${service.name}`,
    says: () => [everywhere, 'It gets connections as soon as its check passes.'],
    fields: backendFields(null),
    verb: 'Add it',
    method: 'PUT',
    target: (values) => backendPath(service, values.name?.trim() ?? ''),
    body: (values) => backendBody(values, null),
    done: (values) => `${values.name} is a backend of ${service.name}`,
  });
}

export function changeBackend(service: Service, backend: Backend): Promise<void> {
  return edit({
    title: `Change ${backend.name} of ${service.name}`,
    says: () => [everywhere],
    fields: backendFields(backend),
    verb: 'Apply',
    method: 'PATCH',
    target: () => backendPath(service, backend.name),
    body: (values) => backendBody(values, backend),
    done: () => `${backend.name} is changed`,
  });
}

export function removeBackend(service: Service, backend: Backend): Promise<void> {
  return edit({
    title: `Remove ${backend.name} from ${service.name}`,
    says: () => ['Its open connections are cut. To let them end by themselves, drain it first.', service.up <= 1 ? `No other backend of ${service.name} is up.` : `${service.up - 1} other${service.up === 2 ? ' is' : 's are'} up.`],
    fields: [],
    verb: 'Remove it',
    danger: true,
    method: 'DELETE',
    target: () => backendPath(service, backend.name),
    done: () => `${backend.name} is removed from ${service.name}`,
  });
}

/** All keys of a VIP, for what no form has. */
export async function editVip(vip: Vip): Promise<void> {
  const table = await get<unknown>(`/v1/config/vips/${part(vip.name)}`).catch((error: unknown) => dialog.complain(words(error)));
  if (table === undefined) return;
  return edit({
    title: `All keys of ${vip.name}`,
    says: () => [everywhere, 'The keys are those of a [[vip]] table of the file.'],
    fields: [{ name: 'json', label: 'As JSON', kind: 'area', value: JSON.stringify(table, null, 2), required: true }],
    verb: 'Apply',
    wide: true,
    method: 'PUT',
    target: () => `/v1/vips/${part(vip.name)}`,
    body: (values) => parse(values.json ?? ''),
    done: () => `${vip.name} is changed`,
  });
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`This is no JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** The whole configuration. */
export async function editText(): Promise<void> {
  await edits.read();
  const match = edits.match;
  const body = (values: Values) => ({ text: values.text, ...(values.reason ? { reason: values.reason } : {}) });
  dialog.open({
    title: 'Edit the configuration',
    says: () => [everywhere],
    fields: [{ name: 'text', label: 'As TOML', kind: 'area', value: edits.configuration?.text ?? '', required: true }, reason],
    verb: 'Apply',
    wide: true,
    preview: (values) => send<Preview>('POST', '/v1/config/diff', body(values), match),
    run: async (values) => finish(await send<EditReply>('POST', '/v1/config/apply', body(values), match), 'It is in force'),
  });
}

export async function rollBack(to: Revision): Promise<void> {
  await edits.read();
  const match = edits.match;
  const body = (values: Values) => ({ revision: to.revision, ...(values.reason ? { reason: values.reason } : {}) });
  dialog.open({
    title: `Go back to revision ${to.revision}`,
    says: () => ['What was changed after it is undone, as a revision of its own: it can be undone in turn.', everywhere],
    fields: [reason],
    verb: 'Go back',
    danger: true,
    preview: (values) => send<Preview>('POST', '/v1/config/rollback?dry_run=1', body(values), match),
    run: async (values) => finish(await send<EditReply>('POST', '/v1/config/rollback', body(values), match), `The configuration is that of revision ${to.revision} again`),
  });
}
