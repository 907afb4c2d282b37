// Asks again and again, for as long as somebody looks.
import { pause } from './live.svelte';

/** How many times less often while nobody sees the page. */
const HIDDEN = 5;

/** Reads at once and then every so many milliseconds; call what it answers to end that, which may be while it reads. */
export function again(every: number, read: (isOver: () => boolean) => Promise<void>): () => void {
  let over = false;
  void (async () => {
    while (!over) {
      await read(() => over);
      await pause(document.hidden ? HIDDEN * every : every);
    }
  })();
  return () => (over = true);
}
