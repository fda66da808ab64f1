/* How long bytes take between ranks. Ranks lie host by host, in order; those of a group are
   `stride` apart, so that `near` of them share a host. Links inside a host carry link_gbps for
   every rank at once; a host's network is shared by all of its ranks that send out. */
#include "scaling/cost.h"

#include <math.h>

/* Ranks of a group on one host. */
static int near_ranks(int ranks, int stride, int ranks_per_host)
{
    if (ranks * stride <= ranks_per_host) {
        return ranks;
    }
    return stride < ranks_per_host ? ranks_per_host / stride : 1;
}

/* Everybody sends equal parts to everybody: (P - near) of P - 1 parts leave the host, from each
   of its ranks. */
double dk_cost_all_to_all_s(const dk_machine *machine, double bytes, int ranks, int stride,
                            int ranks_per_host)
{
    int near = near_ranks(ranks, stride, ranks_per_host);
    if (ranks < 2) {
        return 0;
    }
    double out = bytes * (ranks - near) / (ranks - 1);
    double inside = (bytes - out) / (machine->link_gbps * 1e9);
    if (near == ranks) {
        return inside + machine->call_us * 1e-6;
    }
    double outside = out * ranks_per_host / (machine->net_gbps * 1e9);
    return fmax(inside, outside) + machine->net_call_us * 1e-6;
}

/* One of `near` ranks sends to another host, of ranks_per_host / near groups each. */
double dk_cost_ring_s(const dk_machine *machine, double bytes, int ranks, int stride,
                      int ranks_per_host)
{
    int near = near_ranks(ranks, stride, ranks_per_host);
    if (ranks < 2) {
        return 0;
    }
    double inside = near > 1 ? bytes / (machine->link_gbps * 1e9) : 0;
    if (near == ranks) {
        return inside + machine->call_us * 1e-6;
    }
    double outside = bytes * ranks_per_host / near / (machine->net_gbps * 1e9);
    return fmax(inside, outside) + machine->net_call_us * 1e-6;
}
