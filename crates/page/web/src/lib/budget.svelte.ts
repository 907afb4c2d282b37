// How well each VIP has kept its promise: asked for as long as somebody looks.
import { again } from './again';
import { Refused, get } from './ask';
import { words } from './dialog.svelte';
import type { Budget, Kept } from './types';

/** Nothing here changes fast. */
const EVERY = 3000;

class Budgets {
  all = $state.raw<Budget | null>(null);
  problem = $state('');

  /** Asks again and again; call what it answers to end that. */
  look(): () => void {
    return again(EVERY, () => this.read());
  }

  private async read(): Promise<void> {
    try {
      this.all = await get<Budget>('/v1/budget');
      this.problem = '';
    } catch (error) {
      this.problem = error instanceof Refused && error.problem.status === 404 ? 'This agent counts none of this: it is of an older version.' : words(error);
    }
  }
}

export const budgets = new Budgets();

/** The worst first: over the bound, then the least served, then what is not known. */
export function worstFirst(a: Kept, b: Kept): number {
  const served = (kept: Kept) => kept.availability ?? 2;
  return b.over_bound - a.over_bound || served(a) - served(b) || a.vip.localeCompare(b.vip);
}

/** Never more nines than there were. */
export function percent(part: number | null): string {
  if (part === null) return '';
  const shown = Math.floor(part * 1e6) / 1e4;
  return shown >= 100 ? '100 %' : `${shown.toFixed(4)} %`;
}

/** Where a time without an owner stands on an axis from 1 ms on, each step ten times the last, in percent. */
export function place(ms: number, longest: number): number {
  const decades = Math.max(1, Math.log10(longest));
  return Math.min(100, Math.max(0, (Math.log10(Math.max(ms, 1)) / decades) * 100));
}
