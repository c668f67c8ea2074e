/* What the kernel tells of the workloads that are measured, and of nobody else.
 *
 * A task that belongs to one has a number in `members`, which its children and threads take over before they run a
 * single instruction; the measurer writes it to those that it finds by itself. Nothing here is found by a pid or by a
 * cgroup: both are given again, and a host may have cgroups of another version.
 *
 * Every program returns early for tasks that belong to nobody. `called` is the only one on a hot path: while it is
 * attached every system call on the host pays for it, so that there is one for all workloads.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tasks.h"

#define CALLS 512
#define WORDS (CALLS / 64)
#define CPUS 8
#define PLACES 0xfff
#define OTHER 509 /* a number that no call has */
#define X32 510   /* any call by that interface */
#define COMPAT 511
#define TS_COMPAT 2
#define TIF_32BIT (1ul << 22)
#define SIGKILL 9
#define TCP_SYN_SENT 2
#define AF_INET 2
#define AF_INET6 10
#define CAP_SYS_ADMIN 21
#define PF_IO_WORKER 0x10

enum kind { CALL = 1, TRACED, RING, CONNECT, MOVED, WRITTEN, UNKNOWN, CAPABLE };

struct event {
    u64 value;
    u32 kind, workload, pid, thread, other, number;
    char name[16];
    u8 address[16], from[16];
};

struct workload {
    u64 allowed[WORDS];          /* ours to write: calls that are not told */
    u64 seen[2][WORDS];          /* the kernel's, in the half that `half` names; the other one is cleared by us */
    u64 told[2][WORDS];
    u64 operations;              /* of io_uring that are not told; ours to write */
    u64 seen_operations, told_operations;
    u64 lost;                    /* events for which there was no room */
    u32 half, kill;              /* ours to write. kill: end whoever makes a call that is not allowed */
    u32 number, unused;          /* ours to write: whose place this is by now */
    u64 capabilities;            /* whose use is not told; ours to write */
    u64 used;                    /* and told of */
    u64 administering[WORDS];    /* ours to write: calls in which CAP_SYS_ADMIN is used in earnest */
    u32 counts[CPUS][CALLS];     /* not exact where there are more processors */
};

struct {
    NUMBER(type, BPF_MAP_TYPE_ARRAY);
    NUMBER(map_flags, BPF_F_MMAPABLE);
    NUMBER(max_entries, 1);
    TYPE(key, u32);
    TYPE(value, struct workload);
} workloads SECTION(".maps");

struct {
    NUMBER(type, BPF_MAP_TYPE_RINGBUF);
    NUMBER(max_entries, 1 << 20);
} events SECTION(".maps");

/* A place is given again, a number is not: who has an old one belongs to nobody. */
INLINE struct workload *numbered(u32 number)
{
    u32 place = number & PLACES;
    struct workload *workload;

    if (!number)
        return 0;
    workload = bpf_map_lookup_elem(&workloads, &place);
    return workload && workload->number == number ? workload : 0;
}

INLINE struct event *begin(enum kind kind, struct workload *workload, struct task_struct *task)
{
    struct event *event = bpf_ringbuf_reserve(&events, sizeof *event, 0);

    if (!event) {
        __sync_fetch_and_add(&workload->lost, 1);
        return 0;
    }
    __builtin_memset(event, 0, sizeof *event);
    event->kind = kind;
    event->workload = workload->number;
    event->thread = pid_of(task);
    event->pid = pid_of(task->group_leader);
    return event;
}

INLINE void tell(enum kind kind, struct workload *workload, struct task_struct *task, u32 what, u32 other, u64 value)
{
    struct event *event = begin(kind, workload, task);

    if (!event)
        return;
    event->number = what;
    event->other = other;
    event->value = value;
    bpf_get_current_comm(event->name, sizeof event->name);
    bpf_ringbuf_submit(event, 0);
}

INLINE int is_compat(struct task_struct *task)
{
    struct pt_regs *registers = 0;

    if (exists(registers->orig_ax))
        return task->thread_info.status & TS_COMPAT;
    return (task->thread_info.flags & TIF_32BIT) != 0;
}

/* The call that a task is in: numbered by the interface that it was made by. More than any where it is in none, as
 * io_uring's own threads are, of which one kernel says that they are in the call that made them, another in the first.
 */
struct call {
    u64 number;
    int compat, arm;
};

INLINE struct call call_of(struct task_struct *task)
{
    struct pt_regs *registers = bpf_task_pt_regs(task);
    struct call call = {~0ull, is_compat(task), 0};

    if (task->flags & PF_IO_WORKER)
        return call;
    if (exists(registers->orig_ax))
        call.number = registers->orig_ax;
    else if (exists(registers->syscallno))
        call.number = (s64)registers->syscallno, call.arm = 1;
    return call;
}

/* By its numbers on x86-64 (or as x32), i386, arm64 and arm. */
INLINE int is(struct call call, u32 x86, u32 i386, u32 arm64, u32 arm)
{
    u32 number = call.arm ? (call.compat ? arm : arm64) : (call.compat ? i386 : x86);

    return (call.number & ~0x40000000ull) == number;
}

INLINE int is_ptrace(struct call call)
{
    return is(call, 101, 26, 117, 26) || is(call, 521, ~0u, ~0u, ~0u);
}

INLINE int is_tracing(struct task_struct *task)
{
    return is_ptrace(call_of(task));
}

/* write, pwrite64, writev, pwritev, pwritev2, process_vm_writev, x32's own of these, ptrace; and whatever io_uring does,
 * in io_uring_enter or in threads of its own, which are in no call.
 */
INLINE int is_writing(struct task_struct *task)
{
    struct call call = call_of(task);

    return is(call, 1, 4, 64, 4) || is(call, 18, 181, 68, 181) || is(call, 20, 146, 66, 146) ||
           is(call, 296, 334, 70, 362) || is(call, 328, 379, 287, 393) || is(call, 311, 348, 271, 377) ||
           is(call, 516, ~0u, ~0u, ~0u) || is(call, 535, ~0u, ~0u, ~0u) || is(call, 547, ~0u, ~0u, ~0u) ||
           is(call, 540, ~0u, ~0u, ~0u) || is(call, 426, 426, 426, 426) || is_ptrace(call) ||
           task->flags & PF_IO_WORKER;
}

/* Its index in the maps of bits. */
INLINE u32 indexed(struct task_struct *task, u64 call)
{
    if (is_compat(task))
        return COMPAT;
    if (call & 0x40000000)
        return X32;
    return call < OTHER ? call : OTHER;
}

SECTION("tp_btf/sys_enter")
int called(u64 *context)
{
    struct task_struct *me = bpf_get_current_task_btf();
    struct workload *workload = numbered(number_of(me));
    u32 index, word, half;
    u64 bit;

    if (!workload)
        return 0;
    index = indexed(me, context[1]);
    word = index / 64 & (WORDS - 1);
    bit = 1ull << (index & 63);
    half = workload->half & 1;
    workload->counts[bpf_get_smp_processor_id() & (CPUS - 1)][index & (CALLS - 1)]++;
    if (!(workload->seen[half][word] & bit))
        __sync_fetch_and_or(&workload->seen[half][word], bit);
    if (workload->allowed[word] & bit)
        return 0;
    if (workload->kill)
        bpf_send_signal(SIGKILL);
    if (!(workload->told[half][word] & bit) && !(__sync_fetch_and_or(&workload->told[half][word], bit) & bit))
        tell(CALL, workload, me, index, 0, context[1]);
    return 0;
}

/* Before the new task runs. */
SECTION("tp_btf/task_newtask")
int made(u64 *context)
{
    struct task_struct *child = (void *)context[0], *me = bpf_get_current_task_btf();
    u32 number = number_of(me);
    struct workload *workload = numbered(number);

    if (!workload)
        return 0;
    if (!bpf_task_storage_get(&members, child, &number, BPF_LOCAL_STORAGE_GET_F_CREATE))
        tell(UNKNOWN, workload, me, 0, pid_of(child), 0);
    return 0;
}

/* A thread that executes something becomes the first one of its process: it needs a number of its own by then. */
SECTION("tp_btf/sched_prepare_exec")
int executes(u64 *context)
{
    struct task_struct *me = bpf_get_current_task_btf();
    u32 number = number_of(me);
    struct workload *workload = numbered(number);

    if (workload && !bpf_task_storage_get(&members, me, &number, BPF_LOCAL_STORAGE_GET_F_CREATE))
        tell(UNKNOWN, workload, me, 0, pid_of(me), 0);
    return 0;
}

/* Attaching sends a signal. */
SECTION("tp_btf/signal_generate")
int signalled(u64 *context)
{
    struct task_struct *me = bpf_get_current_task_btf(), *other = (void *)context[2];
    struct workload *workload = numbered(number_of(other));

    if (workload && me->group_leader != other->group_leader && is_tracing(me))
        tell(TRACED, workload, me, 0, pid_of(other->group_leader), 0);
    return 0;
}

/* What a tracer does to a task that stands still, it waits for. */
SECTION("tp_btf/sched_wait_task")
int waited_for(u64 *context)
{
    struct task_struct *me = bpf_get_current_task_btf(), *other = (void *)context[0];
    struct workload *workload = numbered(number_of(other));

    if (workload && is_tracing(me))
        tell(TRACED, workload, me, 1, pid_of(other->group_leader), 0);
    return 0;
}

/* What another one's memory is reached by takes a lock of that. `mm->owner` is there where memory is accounted. */
SECTION("tp_btf/mmap_lock_start_locking")
int reached(u64 *context)
{
    struct task_struct *me = bpf_get_current_task_btf(), *other;
    struct mm_struct *mm = (void *)context[0];
    struct workload *workload;

    if (!me->mm || me->mm == mm)
        return 0;
    other = mm->owner;
    if (!other)
        return 0;
    workload = numbered(number_of(other));
    if (workload && is_writing(me))
        tell(WRITTEN, workload, me, 0, pid_of(other->group_leader), 0);
    return 0;
}

SECTION("tp_btf/io_uring_create")
int made_ring(u64 *context)
{
    struct task_struct *me = bpf_get_current_task_btf();
    struct workload *workload = numbered(number_of(me));

    if (workload)
        tell(RING, workload, me, ~0u, 0, 0);
    return 0;
}

/* These pass no call's entry: each kind of them is told once. */
SECTION("tp_btf/io_uring_submit_req")
int submitted(u64 *context)
{
    struct task_struct *me = bpf_get_current_task_btf();
    struct io_kiocb *request = (void *)context[0];
    struct workload *workload = numbered(number_of(me));
    u64 bit;

    if (!workload)
        return 0;
    bit = 1ull << (request->opcode & 63);
    if (!(workload->seen_operations & bit))
        __sync_fetch_and_or(&workload->seen_operations, bit);
    if (workload->operations & bit)
        return 0;
    if (workload->kill)
        bpf_send_signal(SIGKILL);
    if (!(__sync_fetch_and_or(&workload->told_operations, bit) & bit))
        tell(RING, workload, me, request->opcode, 0, 0);
    return 0;
}

/* A connection begins. The addresses are in place by then. */
SECTION("tp_btf/inet_sock_set_state")
int connects(u64 *context)
{
    struct task_struct *me = bpf_get_current_task_btf();
    struct sock *socket = (void *)context[0];
    struct workload *workload;
    struct event *event;

    if (context[2] != TCP_SYN_SENT)
        return 0;
    workload = numbered(number_of(me));
    if (!workload)
        return 0;
    event = begin(CONNECT, workload, me);
    if (!event)
        return 0;
    event->value = bpf_get_socket_cookie(socket);
    event->number = socket->__sk_common.skc_family;
    event->other = __builtin_bswap16(socket->__sk_common.skc_dport);
    if (event->number == AF_INET6) {
        __builtin_memcpy(event->address, &socket->__sk_common.skc_v6_daddr, 16);
        __builtin_memcpy(event->from, &socket->__sk_common.skc_v6_rcv_saddr, 16);
    } else {
        *(u32 *)event->address = socket->__sk_common.skc_daddr;
        *(u32 *)event->from = socket->__sk_common.skc_rcv_saddr;
    }
    bpf_get_current_comm(event->name, sizeof event->name);
    bpf_ringbuf_submit(event, 0);
    return 0;
}

/* A capability was asked for and is there. The kernel asks for CAP_SYS_ADMIN on behalf of whoever takes memory, too. */
SECTION("tp_btf/cap_capable")
int capable(u64 *context)
{
    struct task_struct *me = bpf_get_current_task_btf();
    u32 capability = context[3] & 63, index;
    struct workload *workload;
    u64 bit = 1ull << capability;
    struct call call;

    if ((s32)context[4])
        return 0;
    workload = numbered(number_of(me));
    if (!workload || workload->capabilities & bit)
        return 0;
    call = call_of(me);
    index = call.number >> 31 ? OTHER : indexed(me, call.number);
    if (capability == CAP_SYS_ADMIN && !(workload->administering[index / 64 & (WORDS - 1)] >> (index & 63) & 1))
        return 0;
    if (!(workload->used & bit) && !(__sync_fetch_and_or(&workload->used, bit) & bit))
        tell(CAPABLE, workload, me, capability, index, call.number);
    return 0;
}

SECTION("tp_btf/cgroup_attach_task")
int moved(u64 *context)
{
    struct task_struct *me = bpf_get_current_task_btf(), *other = (void *)context[2];
    struct workload *workload = numbered(number_of(other));

    if (workload)
        tell(MOVED, workload, me, 0, pid_of(other->group_leader), 0);
    return 0;
}
