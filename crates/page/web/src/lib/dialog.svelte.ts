// The one dialog of the page: what an order will do is said, and asked for, before it is given.
import { Refused } from './ask';
import type { Problem } from './types';

export interface Field {
  name: string;
  label: string;
  kind: 'text' | 'choice' | 'area' | 'secret';
  value: string;
  choices?: { value: string; label: string; why?: string }[];
  hint?: string;
  required?: boolean;
  placeholder?: string;
}

/** What an edit would make different. */
export interface Preview {
  revision: number;
  /** Lines that begin with `-`, `+` or a space, under one with the name of the part. */
  diff: string[];
  /** What that means. */
  changes: string[];
  valid: boolean;
  problems: { code: string; severity: string; message: string; reason: string; fix: string; span: { line: number; column: number } }[];
}

/** What came of an edit, or would. */
export interface EditReply extends Preview {
  refused_here: string | null;
}

export type Values = Record<string, string>;

export interface Ask {
  title: string;
  /** What will happen, a sentence each; with the values as they are. */
  says: (values: Values) => string[];
  fields: Field[];
  verb: string;
  danger?: boolean;
  wide?: boolean;
  /** What would come of it as things are, asked whenever the fields change; thrown: why it cannot be done. */
  rehearse?: (values: Values) => Promise<string[]>;
  /** What it would change, before it may be done. */
  preview?: (values: Values) => Promise<Preview>;
  /** Does it; answers what came of it. */
  run: (values: Values, preview: Preview | null) => Promise<string>;
}

class Dialog {
  ask = $state.raw<Ask | null>(null);
  /** What came of the last one, for people and screen readers. */
  done = $state('');
  refused = $state('');

  open(ask: Ask): void {
    this.ask = ask;
  }

  close(): void {
    this.ask = null;
  }

  tell(text: string): void {
    this.refused = '';
    this.done = text;
  }

  complain(text: string): void {
    this.done = '';
    this.refused = text;
  }
}

export const dialog = new Dialog();

/** A refusal in the agent's words, with what it means for an edit that somebody else has overtaken. */
export function words(error: unknown): string {
  if (!(error instanceof Refused)) return error instanceof Error ? error.message : String(error);
  const { status, title, detail, fix, code }: Problem = error.problem;
  const said = [title, detail].filter(Boolean).join(': ') + (fix ? `; ${fix}` : '');
  if (status === 412) return `Somebody changed it meanwhile: ${said}. Close this, look at what it is now, and try again.`;
  if (status === 403) return `You may not do this: ${said}`;
  if (status === 404 && code === 'unknown_path') return 'This agent cannot do that yet: it is of an older version.';
  return said;
}
