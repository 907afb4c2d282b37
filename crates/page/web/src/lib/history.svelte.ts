// What the page has seen since it was opened: states and traffic of every backend. The agent keeps no such history.
import type { Backend, Status } from './types';

/** Time between two samples of traffic, at least, and how many are kept: five minutes. */
const EVERY = 1800;
const SAMPLES = 150;
/** States kept of a backend, and for how long. */
const CHANGES = 60;
export const BOARD = 10 * 60_000;

export interface Sample {
  at: number;
  connections: number;
  bytes: number;
}

export interface Spell {
  at: number;
  state: string;
  reason: string;
}

interface Known {
  last: { at: number; connections: number; bytes: number } | null;
  samples: Sample[];
  spells: Spell[];
}

export class History {
  /** Grows with every sample: what reads the history reads this first. */
  version = $state(0);
  since = 0;
  private readonly known = new Map<string, Known>();

  take(status: Status, at: number): void {
    this.since ||= at;
    for (const vip of status.vips) {
      for (const service of vip.services) {
        for (const backend of service.backends) this.note(`${service.name} ${backend.name}`, backend, at);
      }
    }
    this.version += 1;
  }

  of(service: string, backend: string): Known | undefined {
    return this.known.get(`${service} ${backend}`);
  }

  /** Connections and bytes a second lately, and how many were opened in the time that is kept. */
  rate(service: string, backend: string): { connections: number; bytes: number; opened: number } | null {
    const samples = this.of(service, backend)?.samples;
    const last = samples?.at(-1);
    if (!samples || !last) return null;
    const opened = samples.slice(-30).reduce((sum, sample) => sum + sample.connections, 0);
    return { connections: last.connections, bytes: last.bytes, opened };
  }

  /** What was asked of one backend alone, where the status does not count. */
  feed(service: string, backend: string, connections: number, bytes: number): void {
    const known = this.of(service, backend);
    if (known) this.count(known, connections, bytes, Date.now());
    this.version += 1;
  }

  private note(key: string, backend: Backend, at: number): void {
    let known = this.known.get(key);
    if (!known) {
      known = { last: null, samples: [], spells: [] };
      this.known.set(key, known);
    }
    const spell = known.spells.at(-1);
    if (spell?.state !== backend.state) {
      known.spells.push({ at, state: backend.state, reason: backend.reason });
      if (known.spells.length > CHANGES) known.spells.shift();
    } else {
      spell.reason = backend.reason;
    }
    if (backend.traffic) this.count(known, backend.traffic.connections, backend.traffic.bytes, at);
  }

  private count(known: Known, connections: number, bytes: number, at: number): void {
    const last = known.last;
    if (last && at - last.at < EVERY) return;
    // A counter that went back began anew: there is no rate across that.
    if (last && connections >= last.connections && bytes >= last.bytes) {
      const seconds = (at - last.at) / 1000;
      known.samples.push({ at, connections: (connections - last.connections) / seconds, bytes: (bytes - last.bytes) / seconds });
      if (known.samples.length > SAMPLES) known.samples.shift();
    }
    known.last = { at, connections, bytes };
  }
}
