// The counters of the backends that a packet could go to: asked for each second, as `buoy path --live` does.
import { again } from './again';
import { get, part } from './ask';
import { words } from './dialog.svelte';
import type { BackendFlows, Counts, Path, Service, Status } from './types';

const EVERY = 1000;
/** Where it could be any of many, these are enough to see that it works. */
const SHOWN_MAX = 64;

export interface Counted {
  backend: string;
  /** The packet goes there, as it was traced. */
  chosen: boolean;
  now: Counts;
  before: Counts | null;
}

/** What the answering node knows of the connections of a service's backends. */
export async function flowsOf(service: string): Promise<BackendFlows[]> {
  return (await get<{ backends: BackendFlows[] }>(`/v1/services/${part(service)}/flows`)).backends;
}

class Counters {
  service = $state('');
  rows = $state.raw<Counted[]>([]);
  problem = $state('');

  /** Counts for as long as that path is looked at; call what it answers to end that. */
  look(service: Service, path: Path): () => void {
    const chosen = path.ways.flatMap((way) => (way.backend ? [way.backend] : []));
    // Where it is not known which one is chosen, it could be any.
    const names = service.backends.map((backend) => backend.name).filter((name) => !chosen.length || chosen.includes(name)).slice(0, SHOWN_MAX);
    this.service = service.name;
    this.rows = [];
    this.problem = '';
    return again(EVERY, async (isOver) => {
      const rows = await this.read(service.name, names, chosen);
      if (rows && !isOver()) this.rows = rows;
    });
  }

  private async read(service: string, names: string[], chosen: string[]): Promise<Counted[] | null> {
    const before = new Map(this.rows.map((row) => [row.backend, row.now]));
    try {
      const backends = await flowsOf(service);
      this.problem = '';
      const shown = backends.filter(({ backend }) => names.includes(backend));
      return shown.map(({ backend, flows }) => ({ backend, chosen: chosen.includes(backend), now: flows, before: before.get(backend) ?? null }));
    } catch (error) {
      this.problem = words(error);
      return null;
    }
  }
}

export const counters = new Counters();

/** The service that answers for an address and port: that with the fewest ports. */
export function serving(status: Status, path: Path): Service | null {
  const [, ip, port] = /^\[?(.*?)\]?:(\d+)$/.exec(path.to) ?? [];
  const found = status.vips.flatMap((vip) => {
    const address = vip.addresses.find((one) => one.address.split('/')[0] === ip);
    if (!address) return [];
    return vip.services.flatMap((service) => {
      const width = ports(service.port, path.protocol, Number(port));
      const of = service.name.slice(0, service.name.lastIndexOf(':'));
      return width === null || of !== address.vip ? [] : [{ service, width }];
    });
  });
  return found.sort((a, b) => a.width - b.width)[0]?.service ?? null;
}

/** How many ports `8000-8099/tcp` has beside the first; null: that port is none of them. */
function ports(text: string, protocol: string, port: number): number | null {
  const [range = '', of] = text.split('/');
  const [first, last = first] = range === '*' ? [0, 65_535] : range.split('-').map(Number);
  return of === protocol && first !== undefined && last !== undefined && first <= port && port <= last ? last - first : null;
}

/** As in `17 (+3)`: a counter, and by how much it moved since the last look. */
export function moved(row: Counted, name: Exclude<keyof Counts, 'source'>): string {
  const now = row.now[name] ?? null;
  const before = row.before?.[name] ?? null;
  if (now === null) return '';
  if (before === null || now === before) return now.toLocaleString('en');
  return `${now.toLocaleString('en')} (${now > before ? '+' : '−'}${Math.abs(now - before).toLocaleString('en')})`;
}
