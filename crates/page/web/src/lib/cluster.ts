// What follows from a status: who would own a VIP if a node failed, what is wrong, which colour a node has.
import type { Backend, Candidate, Node, Service, Status, Vip } from './types';

/** Nodes have the same colour everywhere; there are eight. */
export function colour(status: Status, node: string | null): string {
  const place = status.nodes.filter((other) => !other.witness).findIndex((other) => other.name === node);
  return place < 0 ? 'n-none' : `n${place % 8}`;
}

export function owners(status: Status): Node[] {
  return status.nodes.filter((node) => !node.witness);
}

/** Who takes over first when `failed` is gone; null: nobody can. The candidates come best first. */
export function successor(vip: Vip, failed: string): Candidate | null {
  return vip.candidates.find((candidate) => candidate.node !== failed && candidate.standing !== 'excluded') ?? null;
}

export interface Projection {
  failed: string;
  /** VIP to its next owner; null: nobody. Those that stay are not in it. */
  moves: Map<string, string | null>;
  sentence: string;
}

export function projected(status: Status, failed: string): Projection {
  const moves = new Map<string, string | null>();
  const voters = status.nodes.filter((node) => node.name !== failed && (node.me || node.alive)).length;
  for (const vip of status.vips) {
    const majority = vip.votes_needed === 0 || voters >= vip.votes_needed;
    if (!majority) moves.set(vip.name, null);
    else if (vip.owner === failed) moves.set(vip.name, successor(vip, failed)?.node ?? null);
  }
  const to = new Map<string, number>();
  for (const node of moves.values()) if (node) to.set(node, (to.get(node) ?? 0) + 1);
  const lost = [...moves.values()].filter((node) => node === null).length;
  const parts = [...to].map(([node, n]) => `${n} to ${node}`);
  const moved = [...to.values()].reduce((sum, n) => sum + n, 0);
  const says = [moved ? `${moved} VIP${moved === 1 ? ' moves' : 's move'} (${parts.join(', ')})` : 'no VIP moves'];
  if (lost) says.push(`${lost} ${lost === 1 ? 'is' : 'are'} left without an owner`);
  return { failed, moves, sentence: `If ${failed} fails now, ${says.join(', and ')}.` };
}

export type Grade = 'good' | 'warn' | 'bad' | 'off';

export function nodeGrade(node: Node): [Grade, string] {
  if (!node.alive && !node.me) return ['bad', 'not heard'];
  if (!node.me && !node.hears_us) return ['bad', 'one way'];
  if (node.draining) return ['warn', 'drained'];
  if (node.cordoned) return ['warn', 'cordoned'];
  if (node.votes_in_ms) return ['warn', 'starting'];
  return ['good', node.witness ? 'witness' : 'in service'];
}

export function backendGrade(backend: Backend): Grade {
  if (backend.state === 'up') return backend.urgent ? 'warn' : 'good';
  if (backend.state === 'down') return 'bad';
  return backend.state === 'unknown' ? 'off' : 'warn';
}

/** The share of new connections that a backend is to get, from 0 to 1. */
export function dueShare(service: Service, backend: Backend): number {
  const able = service.backends.filter((b) => takes(b));
  const first = able.filter((b) => !b.backup);
  const used = first.length ? first : able;
  const all = used.reduce((sum, b) => sum + weight(b), 0);
  return all && used.includes(backend) ? weight(backend) / all : 0;
}

function takes(backend: Backend): boolean {
  return backend.state === 'up' || backend.state === 'unknown';
}

function weight(backend: Backend): number {
  const ordered = backend.order?.weight;
  const own = (backend.weight * (backend.share ?? 100)) / 100;
  if (!ordered) return own;
  return ordered.endsWith('%') ? (own * parseFloat(ordered)) / 100 : parseFloat(ordered);
}

export interface Trouble {
  grade: Grade;
  about: string;
  text: string;
  link: string;
}

/** Everything that is wrong, the worst first. */
export function troubles(status: Status): Trouble[] {
  const found: Trouble[] = status.problems.map((text) => ({ grade: 'warn', about: status.node, text, link: '#/problems' }));
  for (const node of status.nodes) {
    const [grade, word] = nodeGrade(node);
    if (grade !== 'good') found.push({ grade, about: node.name, text: node.state || word, link: '#/nodes' });
    else if (node.digest && status.digest && node.digest !== status.digest) {
      found.push({ grade: 'warn', about: node.name, text: `its configuration differs from that of ${status.node}`, link: '#/nodes' });
    }
  }
  for (const link of status.links) {
    if (link.unheard) found.push({ grade: 'warn', about: link.name, text: 'none of the live peers is heard there, while another leg hears them', link: '#/nodes' });
  }
  for (const vip of status.vips) {
    const link = `#/map/${encodeURIComponent(vip.name)}`;
    if (!vip.owner) found.push({ grade: 'bad', about: vip.name, text: vip.problem ?? 'nobody owns it', link });
    else if (vip.problem) found.push({ grade: 'warn', about: vip.name, text: vip.problem, link });
    for (const service of vip.services) {
      const where = `#/services/${encodeURIComponent(service.name)}`;
      if (service.problem) found.push({ grade: 'warn', about: service.name, text: service.problem, link: where });
      if (service.backends.length && service.up === 0) found.push({ grade: 'bad', about: service.name, text: 'no backend is up: clients are refused', link: where });
      for (const backend of service.backends) {
        const grade = backendGrade(backend);
        if (grade === 'bad' || grade === 'warn') found.push({ grade, about: `${backend.name} of ${service.name}`, text: `${backend.state}: ${backend.reason}`, link: where });
      }
    }
  }
  const rank = { bad: 0, warn: 1, off: 2, good: 3 };
  return found.sort((a, b) => rank[a.grade] - rank[b.grade]);
}
