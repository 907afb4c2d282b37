// Pools of addresses: asked for when the configuration has changed, and who keeps which address.
import { Refused, get, part, send } from './ask';
import { dialog, words, type EditReply, type Preview } from './dialog.svelte';
import { edits, finish, whyNotEdit } from './edits.svelte';
import type { Pool, PoolAddress } from './types';

class Pools {
  all = $state.raw<Pool[] | null>(null);
  problem = $state('');

  async read(): Promise<void> {
    try {
      this.all = (await get<{ pools: Pool[] }>('/v1/pools')).pools;
      this.problem = '';
    } catch (error) {
      this.all ??= [];
      this.problem = error instanceof Refused && error.problem.status === 404 ? 'This agent knows no pools: it is of an older version.' : words(error);
    }
  }
}

export const pools = new Pools();

/** Less than a tenth is left of what VIPs can ask for, as in `buoy status`. */
export function isNearlyFull(pool: Pool): boolean {
  return pool.gives !== 'each' && pool.free * 10 < pool.size;
}

export function whyNotReserve(pool: Pool | null): string | null {
  if (pool?.gives === 'each') return `each address of ${pool.name} is a VIP already`;
  if (pool && pool.free === 0) return `${pool.name} has no address left`;
  return whyNotEdit();
}

export function whyNotRelease(address: PoolAddress): string | null {
  if (!address.reserved_for) return `the VIP ${address.vip} has it, and it is not reserved`;
  if (address.vip) return `the VIP ${address.vip} has it`;
  return whyNotEdit();
}

interface Reserved {
  address: string;
  edit: EditReply;
}

/** Keeps an address of a pool for somebody. */
export async function reserve(pool: Pool): Promise<void> {
  await edits.read();
  const match = edits.match;
  const ask = (values: Record<string, string>, dry: boolean) => {
    const address = values.address?.trim();
    const body = { pool: pool.name, for: values.for?.trim(), ...(address ? { address } : {}), ...(values.reason ? { reason: values.reason } : {}) };
    return send<Reserved>('POST', `/v1/reservations${dry ? '?dry_run=1' : ''}`, body, match);
  };
  dialog.open({
    title: `Reserve an address of ${pool.name}`,
    says: (values) => [
      values.address?.trim() ? `${values.address.trim()} is kept for ${values.for || '…'}, on every node.` : `An address that is free, or the one that the VIP ${values.for || '…'} has, is kept, on every node.`,
      'No pool gives it to anybody else, until it is released.',
    ],
    fields: [
      { name: 'for', label: 'For', kind: 'text', value: '', required: true, placeholder: 'printer', hint: 'the name of a VIP, or what else has it' },
      { name: 'address', label: 'Address', kind: 'text', value: '', placeholder: pool.ranges[0]?.split('-')[0] ?? '', hint: `one of ${pool.ranges.join(', ')}; empty: any` },
      { name: 'reason', label: 'Reason', kind: 'text', value: '', hint: 'for the history' },
    ],
    verb: 'Reserve it',
    preview: async (values) => {
      const { address, edit } = await ask(values, true);
      return { ...edit, changes: [`${address} would be kept for ${values.for}.`, ...edit.changes] } satisfies Preview;
    },
    run: async (values) => {
      const { address, edit } = await ask(values, false);
      await pools.read();
      return finish(edit, `${address} is kept for ${values.for}`);
    },
  });
}

/** Keeps an address for nobody any more. */
export async function release(pool: Pool, { address, reserved_for }: PoolAddress): Promise<void> {
  await edits.read();
  const match = edits.match;
  const target = (reason: string | undefined, dry: boolean) => {
    const query = new URLSearchParams({ ...(dry ? { dry_run: '1' } : {}), ...(reason ? { reason } : {}) });
    return `/v1/reservations/${part(address)}${query.size ? `?${query}` : ''}`;
  };
  dialog.open({
    title: `Release ${address}`,
    says: () => [`It is kept for ${reserved_for} no more: ${pool.name} may give it to the next VIP that asks.`, `If ${reserved_for} still uses it, two hosts will have it then.`],
    fields: [{ name: 'reason', label: 'Reason', kind: 'text', value: '', hint: 'for the history' }],
    verb: 'Release it',
    danger: true,
    preview: (values) => send<Preview>('DELETE', target(values.reason, true), undefined, match),
    run: async (values) => {
      const edit = await send<EditReply>('DELETE', target(values.reason, false), undefined, match);
      await pools.read();
      return finish(edit, `${address} is free`);
    },
  });
}
