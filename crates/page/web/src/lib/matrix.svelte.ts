// What each node says it hears: asked of all of them by way of this one, as long as somebody looks.
import { again } from './again';
import { Refused, get } from './ask';
import { words } from './dialog.svelte';
import type { Heard, Row, Status } from './types';

/** Round trips and losses change all the time, and each look is a question to every node. */
const EVERY = 2000;

class Matrix {
  rows = $state.raw<Row[] | null>(null);
  problem = $state('');

  /** Asks again and again; call what it answers to end that. */
  look(): () => void {
    return again(EVERY, () => this.read());
  }

  row(node: string): Row | undefined {
    return this.rows?.find((row) => row.node === node);
  }

  private async read(): Promise<void> {
    try {
      this.rows = (await get<{ rows: Row[] }>('/v1/matrix')).rows;
      this.problem = '';
    } catch (error) {
      this.rows = null;
      this.problem = error instanceof Refused && error.problem.status === 404 ? 'this agent is of an older version, and does not ask the others' : words(error);
    }
  }
}

export const matrix = new Matrix();

export interface Cell {
  /** `unknown`: nobody has said; `one_way`: it hears the other, which does not hear it. */
  is: 'self' | 'good' | 'lossy' | 'silent' | 'one_way' | 'unknown';
  text: string;
  says: string;
}

/** A round trip that loses more than this is worth a look. */
const LOSSY = 2;

/** How one node hears another, by its own word; where it says nothing, by what this node knows of that. */
export function cell(status: Status, from: string, to: string): Cell {
  if (from === to) return { is: 'self', text: '', says: '' };
  const row = matrix.row(from);
  const heard = row && row.unknown === null ? row.hears.find((one) => one.node === to) : undefined;
  if (heard) return told(from, to, heard);
  const other = status.nodes.find((node) => node.name === from);
  // Who answers this node hears it: so much is known of a node that says nothing.
  if (to === status.node && other?.alive) {
    if (other.hears_us) return { is: 'good', text: 'heard', says: `${from} answers ${to}; more of it is not known: ${why(row)}` };
    return { is: 'silent', text: 'not heard', says: `${from} does not answer ${to}; more of it is not known: ${why(row)}` };
  }
  return { is: 'unknown', text: '?', says: `not known: ${from} did not say (${why(row)})` };
}

function why(row: Row | undefined): string {
  return row?.unknown ?? (matrix.problem || 'it has not been asked yet');
}

function told(from: string, to: string, heard: Heard): Cell {
  const back = matrix.row(to);
  const hearsBack = back && back.unknown === null ? back.hears.find((one) => one.node === from)?.alive : heard.answers;
  const last = heard.heard_ms === null ? 'never' : `${heard.heard_ms.toFixed(heard.heard_ms < 10 ? 1 : 0)} ms ago`;
  if (!heard.alive) return { is: 'silent', text: 'not heard', says: `${from} does not hear ${to}; last heard: ${last}` };
  const trip = heard.round_trip_ms === null ? '' : `${heard.round_trip_ms.toFixed(heard.round_trip_ms < 10 ? 2 : 0)} ms`;
  const lost = heard.loss_percent ?? 0;
  const figures = `last heard ${last}, round trip ${trip || 'not known'}, ${lost.toFixed(0)} % of the heartbeats unanswered`;
  if (hearsBack === false) return { is: 'one_way', text: 'one way', says: `${from} hears ${to}, and ${to} does not hear ${from}; ${figures}` };
  if (lost > LOSSY) return { is: 'lossy', text: `${trip} −${lost.toFixed(0)} %`, says: `${from} hears ${to}; ${figures}` };
  return { is: 'good', text: trip || 'heard', says: `${from} hears ${to}; ${figures}` };
}
