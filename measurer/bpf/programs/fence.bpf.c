/* A fence around workloads: what their tasks connect to, or send a datagram to, that no rule holds is refused (EPERM)
 * before the first packet, and told. So is a socket of a protocol of which rules cannot say anything.
 *
 * Those of `cgroup` are attached at a control group above all workloads, and judge by the mark of the task that asks: a
 * workload need not have a group of its own, and a socket belongs to whoever uses it. Who belongs to nobody passes at
 * once. Those of `own` are attached at a workload's own group, for kernels that ask no marks there: whoever comes is its.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tasks.h"

#define RULES 256
#define TELL 64 /* refusals of one workload that are told in a second: one is enough to know of them */
#define SECOND 1000000000ull
#define REFUSED 0
#define PASSES 1
#define MAPPED 0xffff0000u /* of an IPv4 address within one of IPv6: the word before it, as it lies in memory */
#define SOCK_RAW 3
#define TCP 6
#define UDP 17
#define UDP_LITE 136
#define MPTCP 262

enum kind { CONNECT = 1, DATAGRAM, SOCKET, UNKNOWN };

/* linux/bpf.h */
struct bpf_sock_addr {
    u32 user_family, user_ip4, user_ip6[4], user_port, family, type, protocol;
};

struct bpf_sock {
    u32 bound_dev_if, family, type, protocol;
};

static u64 (*bpf_ktime_get_ns)(void) = (void *)5;

struct refusal {
    u32 kind, workload, pid, thread, type, protocol, version, port;
    u64 address[2];
    char name[16];
};

/* Addresses of 16 bytes, those of IPv4 mapped. kind: version and protocol, of which the bits of kinds count. Compared
 * without a branch, each of which the verifier would follow both ways.
 */
struct rule {
    u64 first[2], mask[2];
    u32 low, high, kind, kinds;
};

/* told: in this second. unsent: the same, of datagram sockets that are connected, so that those hide nothing else. */
struct fence {
    u64 since;
    u32 told, unsent, count, unused;
    struct rule rules[RULES];
};

struct {
    NUMBER(type, BPF_MAP_TYPE_HASH);
    NUMBER(map_flags, BPF_F_NO_PREALLOC);
    TYPE(key, u32);
    TYPE(value, struct fence);
} fences SECTION(".maps");

struct {
    NUMBER(type, BPF_MAP_TYPE_RINGBUF);
    NUMBER(max_entries, 1 << 18);
} refusals SECTION(".maps");

/* Of refusals for which there was no room. */
struct {
    NUMBER(type, BPF_MAP_TYPE_ARRAY);
    NUMBER(map_flags, BPF_F_MMAPABLE);
    NUMBER(max_entries, 1);
    TYPE(key, u32);
    TYPE(value, u64);
} losses SECTION(".maps");

/* Of whom the group is, for those of `own`. */
struct {
    NUMBER(type, BPF_MAP_TYPE_ARRAY);
    NUMBER(max_entries, 1);
    TYPE(key, u32);
    TYPE(value, u32);
} owner SECTION(".maps");

INLINE u32 marked(void)
{
    return number_of(bpf_get_current_task_btf());
}

INLINE u32 owned(void)
{
    u32 zero = 0, *number = bpf_map_lookup_elem(&owner, &zero);

    return number ? *number : 0;
}

INLINE struct refusal *begin(enum kind kind, u32 number, struct task_struct *task)
{
    struct refusal *refusal = bpf_ringbuf_reserve(&refusals, sizeof *refusal, 0);
    u32 zero = 0;
    u64 *lost;

    if (!refusal) {
        lost = bpf_map_lookup_elem(&losses, &zero);
        if (lost)
            __sync_fetch_and_add(lost, 1);
        return 0;
    }
    __builtin_memset(refusal, 0, sizeof *refusal);
    refusal->kind = kind;
    refusal->workload = number;
    refusal->thread = pid_of(task);
    refusal->pid = pid_of(task->group_leader);
    bpf_get_current_comm(refusal->name, sizeof refusal->name);
    return refusal;
}

/* Not exact where several processors refuse at once. */
INLINE int is_told(struct fence *fence, int unsent)
{
    u64 now = bpf_ktime_get_ns();

    if (now - fence->since > SECOND) {
        fence->since = now;
        fence->told = fence->unsent = 0;
    }
    return (unsent ? fence->unsent++ : fence->told++) < TELL;
}

/* port: as it lies in memory. */
INLINE int judge(u32 number, enum kind kind, u32 type, u32 protocol, u32 version, u64 high, u64 low, u32 port)
{
    struct refusal *refusal;
    struct fence *fence;
    u32 kinds;

    if (!number)
        return PASSES;
    fence = bpf_map_lookup_elem(&fences, &number);
    if (!fence)
        return PASSES;
    port = __builtin_bswap16(port);
    if (protocol == UDP_LITE)
        protocol = UDP;
    if (protocol == MPTCP)
        protocol = TCP;
    kinds = version << 16 | (protocol & 0xffff);
    for (u32 i = 0; i < RULES && i < fence->count; i++) {
        struct rule *rule = &fence->rules[i];
        u64 differs = ((high ^ rule->first[0]) & rule->mask[0]) | ((low ^ rule->first[1]) & rule->mask[1]);

        differs |= (kinds ^ rule->kind) & rule->kinds;
        differs |= (((u64)port - rule->low) | ((u64)rule->high - port)) >> 63; /* one of them is negative */
        if (!differs)
            return PASSES;
    }
    if (!is_told(fence, kind == CONNECT && protocol == UDP))
        return REFUSED;
    refusal = begin(kind, number, bpf_get_current_task_btf());
    if (!refusal)
        return REFUSED;
    refusal->type = type;
    refusal->protocol = protocol;
    refusal->version = version;
    refusal->port = port;
    refusal->address[0] = high;
    refusal->address[1] = low;
    bpf_ringbuf_submit(refusal, 0);
    return REFUSED;
}

INLINE int judge_4(u32 number, enum kind kind, struct bpf_sock_addr *to)
{
    return judge(number, kind, to->type, to->protocol, 4, 0, (u64)to->user_ip4 << 32 | MAPPED, to->user_port);
}

INLINE int judge_6(u32 number, enum kind kind, struct bpf_sock_addr *to)
{
    u64 high = to->user_ip6[0] | (u64)to->user_ip6[1] << 32, low = to->user_ip6[2] | (u64)to->user_ip6[3] << 32;
    u32 version = !high && (u32)low == MAPPED ? 4 : 6;

    return judge(number, kind, to->type, to->protocol, version, high, low, to->user_port);
}

/* Raw ones, and those of other protocols, go where nobody asks the programs for addresses. */
INLINE int judge_socket(u32 number, struct bpf_sock *socket)
{
    u32 protocol = socket->protocol;

    if (socket->type != SOCK_RAW &&
        (protocol == TCP || protocol == UDP || protocol == UDP_LITE || protocol == MPTCP))
        return PASSES;
    return judge(number, SOCKET, socket->type, protocol, 0, 0, 0, 0);
}

SECTION("cgroup/connect4")
int connect4(struct bpf_sock_addr *to)
{
    return judge_4(marked(), CONNECT, to);
}

SECTION("cgroup/connect6")
int connect6(struct bpf_sock_addr *to)
{
    return judge_6(marked(), CONNECT, to);
}

/* For datagrams that say where to. */
SECTION("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *to)
{
    return judge_4(marked(), DATAGRAM, to);
}

SECTION("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *to)
{
    return judge_6(marked(), DATAGRAM, to);
}

SECTION("cgroup/sock_create")
int sock_create(struct bpf_sock *socket)
{
    return judge_socket(marked(), socket);
}

SECTION("own/connect4")
int own_connect4(struct bpf_sock_addr *to)
{
    return judge_4(owned(), CONNECT, to);
}

SECTION("own/connect6")
int own_connect6(struct bpf_sock_addr *to)
{
    return judge_6(owned(), CONNECT, to);
}

SECTION("own/sendmsg4")
int own_sendmsg4(struct bpf_sock_addr *to)
{
    return judge_4(owned(), DATAGRAM, to);
}

SECTION("own/sendmsg6")
int own_sendmsg6(struct bpf_sock_addr *to)
{
    return judge_6(owned(), DATAGRAM, to);
}

SECTION("own/sock_create")
int own_sock_create(struct bpf_sock *socket)
{
    return judge_socket(owned(), socket);
}

/* Before the new task runs. A thread has a number of its own, which stays when it executes something. */
SECTION("tp_btf/task_newtask")
int made(u64 *context)
{
    struct task_struct *task = (void *)context[0];
    u32 number = marked();
    struct refusal *unknown;

    if (!number || !bpf_map_lookup_elem(&fences, &number))
        return 0;
    if (bpf_task_storage_get(&members, task, &number, BPF_LOCAL_STORAGE_GET_F_CREATE))
        return 0;
    unknown = begin(UNKNOWN, number, task);
    if (unknown)
        bpf_ringbuf_submit(unknown, 0);
    return 0;
}
