// Asks the agent over HTTP; what is not a success is thrown as a `Refused` in the agent's words.
import type { Problem } from './types';

const TOKEN = 'buoy-token';

export class Refused extends Error {
  constructor(readonly problem: Problem) {
    super(problem.detail ? `${problem.title}: ${problem.detail}` : problem.title);
  }
}

export function setToken(token: string): void {
  sessionStorage.setItem(TOKEN, token);
}

/** Stays the same as long as the same token is used. */
export function asker(): string {
  return sessionStorage.getItem(TOKEN) ?? '';
}

function headers(more: Record<string, string>): Record<string, string> {
  const token = asker();
  return token ? { ...more, authorization: `Bearer ${token}` } : more;
}

/** One request; the answer is a success. */
export async function request(target: string, init: RequestInit & { headers?: Record<string, string> } = {}): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(target, { ...init, headers: headers(init.headers ?? {}), cache: 'no-store' });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new Refused({ status: 0, code: 'unreachable', title: 'nobody answers', detail: 'the agent, or `buoy page`, has ended or cannot be reached' });
  }
  if (response.ok) return response;
  const fallback = { status: response.status, code: 'http', title: `HTTP ${response.status}`, detail: response.statusText };
  const said = (await response.json().catch(() => ({}))) as Partial<Problem>;
  throw new Refused({ ...fallback, ...said, status: response.status });
}

export async function get<T>(target: string): Promise<T> {
  return (await (await request(target, { headers: { accept: 'application/json' } })).json()) as T;
}

/** A change. `match`: the revision that it is based on. */
export async function send<T>(method: string, target: string, body?: unknown, match?: string): Promise<T> {
  const more: Record<string, string> = { accept: 'application/json' };
  if (body !== undefined) more['content-type'] = 'application/json';
  if (match) more['if-match'] = match;
  const init = { method, headers: more, ...(body === undefined ? {} : { body: JSON.stringify(body) }) };
  const text = await (await request(target, init)).text();
  return (text ? JSON.parse(text) : {}) as T;
}

/** One name as a part of a path. */
export const part = encodeURIComponent;

/** Reads server-sent events until they end; `alive` is called for whatever comes, comments too. */
export async function stream(body: ReadableStream<Uint8Array<ArrayBuffer>>, alive: () => void, take: (name: string, data: string) => void): Promise<void> {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    alive();
    rest += value;
    const whole = rest.split(/\r?\n\r?\n/);
    rest = whole.pop() ?? '';
    for (const event of whole) {
      let name = 'message';
      const data: string[] = [];
      for (const line of event.split(/\r?\n/)) {
        if (line.startsWith('event:')) name = line.slice(6).trim();
        else if (line.startsWith('data:')) data.push(line.slice(5).replace(/^ /, ''));
      }
      if (data.length) take(name, data.join('\n'));
    }
  }
}
