// Numbers and times as people read them.

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false });
const day = new Intl.DateTimeFormat(undefined, { month: 'short', day: 'numeric' });

export function time(at: number, millis = false): string {
  const date = new Date(at);
  const part = millis ? `.${String(date.getMilliseconds()).padStart(3, '0')}` : '';
  const today = date.toDateString() === new Date().toDateString();
  return `${today ? '' : `${day.format(date)} `}${clock.format(date)}${part}`;
}

/** The zone of the times above, as in `UTC+02:00`. */
export function zone(): string {
  const minutes = -new Date().getTimezoneOffset();
  const two = (n: number) => String(Math.floor(Math.abs(n))).padStart(2, '0');
  return minutes === 0 ? 'UTC' : `UTC${minutes < 0 ? '−' : '+'}${two(minutes / 60)}:${two(minutes % 60)}`;
}

export function span(ms: number | null | undefined): string {
  if (ms === null || ms === undefined) return '';
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const s = ms / 1000;
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}

/** With the largest unit only: for columns. */
export function age(ms: number | null | undefined): string {
  if (ms === null || ms === undefined) return '';
  const s = ms / 1000;
  if (s < 1) return 'now';
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86_400)} d`;
}

export function count(n: number): string {
  if (n < 10 && n % 1 !== 0) return n.toFixed(1);
  if (n < 10_000) return String(Math.round(n));
  if (n < 1e6) return `${(n / 1e3).toFixed(1)} k`;
  if (n < 1e9) return `${(n / 1e6).toFixed(1)} M`;
  return `${(n / 1e9).toFixed(1)} G`;
}

export function bits(bytesPerSecond: number): string {
  return `${count(bytesPerSecond * 8)}bit/s`;
}

/** Numbers by reason, as in `no neighbour 12, source 3`. */
export function reasons(counts: Record<string, number>): string {
  return Object.entries(counts).map(([reason, n]) => `${reason.replaceAll('_', ' ')} ${count(n)}`).join(', ');
}

export function many(n: number, one: string, more = `${one}s`): string {
  return `${n} ${n === 1 ? one : more}`;
}

/** Milliseconds of `90s`, `30m`, `2h`, `1h30m` or `1d`; null: that is no time. */
export function millis(text: string): number | null {
  const parts = text.trim().match(/\d+\s*(ms|s|m|h|d)/g);
  if (!parts || parts.join('').replace(/\s/g, '') !== text.replace(/\s/g, '')) return null;
  const unit: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
  return parts.reduce((sum, part) => sum + parseInt(part, 10) * (unit[part.replace(/[\d\s]/g, '')] ?? 0), 0);
}
