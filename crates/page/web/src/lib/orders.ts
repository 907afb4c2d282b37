// Every order that the page can give: what it will do in words, why it cannot be given now, and the request.
import { part, send } from './ask';
import { dialog, type Field, type Values } from './dialog.svelte';
import { millis, span } from './format';
import { live } from './live.svelte';
import type { Backend, Node, Service, Vip } from './types';

const reason: Field = { name: 'reason', label: 'Reason', kind: 'text', value: '', hint: 'for the record, and for who asks why', placeholder: 'patching' };

function lasting(what: string): Field {
  return { name: 'for', label: 'For', kind: 'text', value: '', placeholder: '30m', hint: `${what}; empty: until somebody ends it` };
}

/** The body of an order: what was left empty is not in it. */
function body(values: Values): Record<string, string | number> {
  const found: Record<string, string | number> = {};
  if (values.reason) found.reason = values.reason;
  if (values.for) {
    const ms = millis(values.for);
    if (ms === null) throw new Error(`"${values.for}" is no time: write it as 90s, 30m, 2h or 1d`);
    found.for_ms = ms;
  }
  return found;
}

/** Why an order about a VIP cannot be given; null: it can, and is passed on to the owner. */
export function noOwner(vip: Vip): string | null {
  return live.forbidden ?? (vip.owner ? null : `nobody owns ${vip.name}`);
}

export const whyNotMove = noOwner;

export function whyNotHold(vip: Vip): string | null {
  return noOwner(vip) ?? (vip.mine && live.status?.draining ? `${live.me} is drained, so it keeps nothing` : null);
}

export function whyNotRelease(vip: Vip): string | null {
  return noOwner(vip) ?? (vip.held ? null : `nobody holds ${vip.name}`);
}

interface Order {
  title: string;
  says: (values: Values) => string[];
  fields: Field[];
  verb: string;
  danger?: boolean;
  method: 'POST' | 'PATCH';
  target: string;
  body: (values: Values) => Record<string, unknown>;
  done: (values: Values, reply: Reply) => string;
}

interface Reply {
  would?: string[];
  order?: { sentence?: string } | string;
}

/** Every order has the same course: the agent that it is for is asked what would come of it, and then does it. */
async function order({ method, target, body, done, ...ask }: Order): Promise<void> {
  dialog.open({
    ...ask,
    rehearse: async (values) => {
      const { would, order } = await send<Reply>(method, `${target}?dry_run=1`, body(values));
      if (would?.length) return would;
      return [typeof order === 'object' && order.sentence ? `It ${order.sentence}.` : 'It can be done, and moves nothing.'];
    },
    run: async (values) => done(values, await send<Reply>(method, target, body(values))),
  });
}

export function moveVip(vip: Vip): Promise<void> {
  const others = vip.candidates.filter((candidate) => candidate.node !== vip.owner);
  const able = others.filter((candidate) => candidate.standing !== 'excluded');
  return order({
    title: `Move ${vip.name}`,
    says: (values) => [
      values.to
        ? `${vip.name} (${vip.addresses.map((a) => a.address).join(', ')}) goes from ${vip.owner} to ${values.to}, and stays there until it is released.`
        : 'No other node can take it now.',
      'The successor is ready before it moves: connections through services in kernel mode live on.',
    ],
    fields: [
      {
        name: 'to',
        label: 'To',
        kind: 'choice',
        value: able[0]?.node ?? '',
        required: true,
        choices: others.map(({ node, standing, reason }) => {
          const excluded = standing === 'excluded';
          return { value: node, label: excluded ? `${node} (${reason})` : node, ...(excluded ? { why: reason } : {}) };
        }),
      },
      reason,
    ],
    verb: 'Move it',
    method: 'POST',
    target: `/v1/vips/${part(vip.name)}/move`,
    body: (values) => ({ ...body(values), to: values.to }),
    done: (values) => `${vip.name} is on its way to ${values.to}`,
  });
}

export function holdVip(vip: Vip): Promise<void> {
  return order({
    title: `Hold ${vip.name}`,
    says: (values) => [
      `${vip.name} stays on ${vip.owner}${values.for ? ` for ${values.for}` : ''} though another node were better; if ${vip.owner} fails, another takes it over as always.`,
    ],
    fields: [lasting('after so long it is free by itself'), reason],
    verb: 'Hold it',
    method: 'POST',
    target: `/v1/vips/${part(vip.name)}/hold`,
    body,
    done: () => `${vip.name} is held on ${vip.owner}`,
  });
}

export function releaseVip(vip: Vip): Promise<void> {
  return order({
    title: `Release ${vip.name}`,
    says: () => [`${vip.name} goes where it belongs: to the best node that is fit, when its failback allows (${vip.failback}).`],
    fields: [reason],
    verb: 'Release it',
    method: 'POST',
    target: `/v1/vips/${part(vip.name)}/release`,
    body,
    done: () => `${vip.name} is free to move`,
  });
}

export const whyNotBackend = (): string | null => live.forbidden;

/** Why a node cannot be told what to do; null: it can, by way of this one. */
export function whyNotNode(node: Node): string | null {
  return live.forbidden ?? (node.me || node.alive ? null : `${node.name} is not heard`);
}

export function drainNode(node: Node): Promise<void> {
  const vips = (live.status?.vips ?? []).filter((vip) => vip.owner === node.name);
  const stranded = vips.filter((vip) => !vip.candidates.some((c) => c.node !== node.name && c.standing !== 'excluded'));
  return order({
    title: `Drain ${node.name}`,
    says: () => [
      vips.length === 0
        ? `${node.name} owns nothing now, and will take nothing.`
        : `${node.name} gives its ${vips.length} VIP${vips.length === 1 ? '' : 's'} to others, each to a successor that is ready, and takes none.`,
      ...(stranded.length ? [`No other node can take ${stranded.map((vip) => vip.name).join(', ')}: it keeps these.`] : []),
    ],
    fields: [lasting('after so long it is back in service by itself'), reason],
    verb: 'Drain it',
    danger: true,
    method: 'PATCH',
    target: `/v1/nodes/${part(node.name)}`,
    body: (values) => ({ drain: true, ...body(values) }),
    done: () => `${node.name} is drained`,
  });
}

export function undrainNode(node: Node): Promise<void> {
  return order({
    title: `Put ${node.name} back into service`,
    says: () => [`${node.name} takes part again; VIPs that prefer it come back as their failback says.`],
    fields: [],
    verb: 'Put it back',
    method: 'PATCH',
    target: `/v1/nodes/${part(node.name)}`,
    body: () => ({ drain: false }),
    done: () => `${node.name} takes part again`,
  });
}

export function cordonNode(node: Node): Promise<void> {
  return order({
    title: `Cordon ${node.name}`,
    says: () => [`${node.name} keeps what it owns (${node.owns} VIP${node.owns === 1 ? '' : 's'}) and takes another only if no other node can.`],
    fields: [reason],
    verb: 'Cordon it',
    method: 'PATCH',
    target: `/v1/nodes/${part(node.name)}`,
    body: (values) => ({ cordon: true, ...body(values) }),
    done: () => `${node.name} is cordoned`,
  });
}

export function uncordonNode(node: Node): Promise<void> {
  return order({
    title: `Uncordon ${node.name}`,
    says: () => [`${node.name} takes VIPs like any other node again, and gives what it has to better ones as their failback says.`],
    fields: [],
    verb: 'Uncordon it',
    method: 'PATCH',
    target: `/v1/nodes/${part(node.name)}`,
    body: () => ({ cordon: false }),
    done: () => `${node.name} takes VIPs again`,
  });
}

export type Verb = 'drain' | 'disable' | 'enable' | 'weight';

export function orderBackend(service: Service, backend: Backend, verb: Verb): Promise<void> {
  const left = service.backends.filter((other) => other.name !== backend.name && (other.state === 'up' || other.state === 'unknown')).length;
  const rest = left === 0 ? [`No other backend of ${service.name} is up: new connections will be refused.`] : [`${left} other${left === 1 ? '' : 's'} of ${service.name} ${left === 1 ? 'takes' : 'take'} its share.`];
  const name = `${backend.name} of ${service.name}`;
  const says: Record<Verb, (values: Values) => string[]> = {
    drain: (values) => [`${name} gets no new connections; those that are open live on${values.for ? `, and are cut after ${values.for}` : ''}.`, ...rest],
    disable: () => [`${name} gets no connections and is not checked, until it is enabled.`, ...rest],
    enable: () => [`${name} takes connections again, as the file and its checks say.`],
    weight: (values) => [`${name} takes ${values.weight || '…'} as its weight, beside ${service.backends.filter((b) => b !== backend).map((b) => `${b.name} ${b.weight}`).join(', ') || 'no other'}.`],
  };
  const fields: Record<Verb, Field[]> = {
    drain: [lasting('after so long what is left is cut'), reason],
    disable: [reason],
    enable: [reason],
    weight: [{ name: 'weight', label: 'Weight', kind: 'text', value: String(backend.weight), required: true, hint: 'as in 10, 50% or configured' }, reason],
  };
  const titles: Record<Verb, string> = { drain: 'Drain', disable: 'Disable', enable: 'Enable', weight: 'Weigh' };
  return order({
    title: `${titles[verb]} ${backend.name}`,
    says: says[verb],
    fields: fields[verb],
    verb: `${titles[verb]} it`,
    danger: verb === 'disable',
    method: 'POST',
    target: `/v1/services/${part(service.name)}/backends/${part(backend.name)}/${verb}`,
    body: (values) => ({ ...body(values), ...(verb === 'weight' ? { weight: values.weight } : {}) }),
    done: (_, { order }) => `${name} ${typeof order === 'object' ? order.sentence : 'is ordered so'}`,
  });
}

/** How long ago an order was given. */
export function ago(at: number): string {
  return `${span(Math.max(0, Date.now() - at))} ago`;
}
