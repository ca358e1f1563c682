/** How many streams may stay open. */
export interface Quota {
  /** Takes a place for a stream of a connection, named by its peer; false where there is none. */
  take(peer: string): boolean;
  /** Gives a place back that was taken. */
  release(peer: string): void;
}

/**
 * Makes a quota for streams that anyone may hold open without an identity. Each connection has a share of its own, so
 * that one client does not take everybody's.
 */
export function createQuota({ perConnection, total }: { readonly perConnection: number; readonly total: number }): Quota {
  const taken = new Map<string, number>();
  let all = 0;
  return {
    take(peer) {
      const own = taken.get(peer) ?? 0;
      if (own >= perConnection || all >= total) return false;
      taken.set(peer, own + 1);
      all += 1;
      return true;
    },
    release(peer) {
      const own = taken.get(peer) ?? 0;
      if (own === 0) return;
      all -= 1;
      if (own === 1) taken.delete(peer);
      else taken.set(peer, own - 1);
    },
  };
}
