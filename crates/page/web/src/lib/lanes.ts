// Who owned a VIP when, out of the events and of what holds now: the lanes of the timeline.
import type { Event, Phases, Status, Vip } from './types';

export interface Band {
  /** Stays the same while the clock goes on. */
  key: string;
  from: number;
  to: number;
  /** null: nobody. */
  owner: string | null;
}

export interface Change {
  key: string;
  at: number;
  vip: string;
  before: string | null | undefined;
  after: string | null;
  /** How long nobody had it, as far as this node knows. */
  gap: number;
  phases: Phases | null;
  evidence: Event[];
}

/** Events about the same change are at most so far apart. */
const NEAR = 3000;

function byVip(events: Event[]): Map<string, Event[]> {
  const found = new Map<string, Event[]>();
  for (const event of events) {
    if (!event.vip) continue;
    const list = found.get(event.vip);
    if (list) list.push(event);
    else found.set(event.vip, [event]);
  }
  return found;
}

/** The bands of every VIP until `now`; what was before the first event is not known and not drawn. */
export function bands(status: Status, events: Event[], now: number): Map<string, Band[]> {
  const about = byVip(events);
  const found = new Map<string, Band[]>();
  for (const vip of status.vips) found.set(vip.name, lane(vip, about.get(vip.name) ?? [], now));
  return found;
}

function lane(vip: Vip, events: Event[], now: number): Band[] {
  const steps: { at: number; owner: string | null; key?: string }[] = [];
  events.forEach((event, at) => {
    // How long the last owner had been silent, and how long the takeover took: nobody served it then.
    if (event.kind === 'acquired') {
      const phases = events.slice(at + 1, at + 4).find((later) => later.phases)?.phases;
      const gap = phases && phases.detect_ms > 0 ? phases.detect_ms + phases.address_ms : 0;
      if (gap && steps.at(-1)?.owner) steps.push({ at: Math.max(event.at - gap, steps.at(-1)!.at), owner: null });
    }
    if (event.kind === 'acquired' || event.kind === 'owner_heard') steps.push({ at: event.at, owner: event.node ?? null });
    // What is given up in a planned move is taken by another at once, and that is heard a moment later.
    else if (event.kind === 'released') steps.push({ at: event.at, owner: null });
  });
  const known = vip.since_ms === null ? null : now - vip.since_ms;
  const last = steps.at(-1);
  if ((!last || last.owner !== vip.owner) && (known !== null || vip.owner === null)) {
    steps.push({ at: Math.max(known ?? last?.at ?? now, last?.at ?? 0), owner: vip.owner, key: `${vip.name} epoch ${vip.epoch}` });
  }
  // What lasted no time is no step; the same owner in a new epoch, with nobody in between, is the same band.
  const lasting = steps.filter((step, at) => at === steps.length - 1 || step.at < steps[at + 1]!.at);
  const news = lasting.filter((step, at) => at === 0 || step.owner !== lasting[at - 1]!.owner);
  return news.map((step, at) => ({ key: step.key ?? `${vip.name} ${step.at} ${step.owner}`, from: step.at, to: news[at + 1]?.at ?? now, owner: step.owner }));
}

/** Every change of owner, the latest first, with its phases and what else was seen about then. */
export function changes(status: Status, events: Event[], now: number): Change[] {
  const all: Change[] = [];
  const about = byVip(events);
  const hosts = events.filter((event) => !event.vip);
  for (const [vip, list] of bands(status, events, now)) {
    list.forEach((band, at) => {
      if (band.owner === null) return;
      const before = list[at - 1];
      const gap = before && before.owner === null ? before.to - before.from : 0;
      const was = before && before.owner === null ? list[at - 2]?.owner : before?.owner;
      const from = band.from - gap - NEAR;
      const near = (event: Event) => event.at >= from && event.at <= band.from + NEAR;
      const own = (about.get(vip) ?? []).filter(near);
      // This node has measured its own takeovers alone: what it tells about then may be of another one.
      const served = band.owner === status.node ? own.find((event) => event.phases && event.at >= band.from - 50) : undefined;
      const evidence = [...own, ...hosts.filter(near)].sort((a, b) => a.at - b.at);
      all.push({ key: band.key, at: band.from, vip, before: was, after: band.owner, gap, phases: served?.phases ?? null, evidence });
    });
  }
  return all.sort((a, b) => b.at - a.at);
}
