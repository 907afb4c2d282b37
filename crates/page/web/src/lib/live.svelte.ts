// The state of the cluster as this node sees it, kept up to date: pushed where the agent pushes, asked for elsewhere.
import { Refused, asker, get, request, stream } from './ask';
import { History } from './history.svelte';
import type { Event, Me, Problem, Status } from './types';

/** Without a stream: time between two questions. */
const POLL = 500;
/** A stream says something every 15 s, if only that it lives. */
const SILENT = 20_000;
/** Data of a poll older than this are called so. */
const STALE = 3000;
const EVENTS = 2000;

class Live {
  status = $state.raw<Status | null>(null);
  events = $state.raw<Event[]>([]);
  problem = $state.raw<Problem | null>(null);
  /** Said to screen readers: changes of owner. */
  said = $state('');
  how = $state<'stream' | 'poll'>('poll');
  /** Why this user may order nothing; null: he may, or the agent has not been asked yet. */
  forbidden = $state<string | null>(null);
  private rightsOf = '';
  /** When the last data came, and now, by this browser's clock. */
  at = $state(0);
  now = $state(Date.now());
  readonly history = new History();

  get stale(): boolean {
    return this.at > 0 && (this.problem !== null || this.now - this.at > (this.how === 'stream' ? SILENT : STALE));
  }

  get me(): string {
    return this.status?.node ?? '';
  }

  start(): void {
    setInterval(() => (this.now = Date.now()), 1000);
    void this.follow();
  }

  /** At once, after an order. */
  async refresh(): Promise<void> {
    await get<Status>('/v1/status').then((status) => this.take(status), () => undefined);
  }

  private async follow(): Promise<void> {
    for (;;) {
      const abort = new AbortController();
      let watchdog = setTimeout(() => abort.abort(), SILENT);
      const alive = () => {
        clearTimeout(watchdog);
        watchdog = setTimeout(() => abort.abort(), SILENT);
        this.at = Date.now();
        this.problem = null;
      };
      try {
        const headers = { accept: 'text/event-stream, application/json;q=0.5' };
        // Every change at once; and every two seconds what grows all the time: traffic, round trips.
        const response = await request('/v1/status?every=2s', { headers, signal: abort.signal });
        if (response.headers.get('content-type')?.startsWith('text/event-stream') && response.body) {
          this.how = 'stream';
          await stream(response.body, alive, (name, data) => {
            if (name === 'status') this.take(JSON.parse(data) as Status);
          });
          this.how = 'poll';
        } else {
          this.how = 'poll';
          this.take((await response.json()) as Status);
        }
        await pause(document.hidden ? 5 * POLL : POLL);
      } catch (error) {
        this.how = 'poll';
        if (error instanceof Refused) this.problem = error.problem;
        await pause(2 * POLL);
      } finally {
        clearTimeout(watchdog);
      }
    }
  }

  private take(status: Status): void {
    const before = this.status;
    this.at = Date.now();
    this.now = this.at;
    this.problem = null;
    this.history.take(status, this.at);
    const last = status.events.at(-1);
    const known = before?.events.at(-1);
    this.status = status;
    void this.askRights(status);
    if (before && before.node === status.node) this.say(before, status);
    if (!before || last?.at !== known?.at || last?.sentence !== known?.sentence) void this.readEvents();
  }

  /** Asks who it is that asks: whose role is to read may order nothing. */
  private async askRights({ node }: Status): Promise<void> {
    const who = `${node} ${asker()}`;
    if (this.rightsOf === who) return;
    this.rightsOf = who;
    const refused = await get<Me>('/v1/me').then(
      (me) => (me.role === 'read' ? `${me.name} may only look: his role on ${me.node} is ${me.role}` : null),
      () => null,
    );
    this.forbidden = refused;
  }

  private say(before: Status, now: Status): void {
    const owners = new Map(before.vips.map((vip) => [vip.name, vip.owner]));
    const changed = now.vips.filter((vip) => owners.has(vip.name) && owners.get(vip.name) !== vip.owner);
    if (changed.length === 0) return;
    const words = changed.slice(0, 3).map((vip) => (vip.owner ? `${vip.name} is on ${vip.owner} now` : `nobody owns ${vip.name}`));
    const more = changed.length > 3 ? `, and ${changed.length - 3} more changed` : '';
    this.said = words.join(', ') + more;
  }

  private async readEvents(): Promise<void> {
    await get<{ events: Event[] }>(`/v1/events?n=${EVENTS}`).then(
      (reply) => (this.events = reply.events),
      () => undefined,
    );
  }
}

export const live = new Live();

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
