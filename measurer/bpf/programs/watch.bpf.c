/* What the kernel tells of the workloads that are measured, and of nobody else.
 *
 * The first task of a process that belongs to one has a number in `members`, which its children take over before they
 * run a single instruction; the measurer writes it to those that it finds by itself. Nobody is known by a pid or by a
 * cgroup: both are given again, and a host may have cgroups of another version. Who comes in from outside, by a cgroup or
 * by a mount namespace that is a workload's own, is given its number there, at its door.
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
#define OURS 0x1000 /* the measurer's own processes and whom it guards: of place 0, which is nobody's */
#define OTHER 509 /* a number that no call has */
#define X32 510   /* any call by that interface */
#define COMPAT 511
#define TS_COMPAT 2
#define TIF_32BIT (1ul << 22)
#define CLONE_THREAD 0x10000
#define DEEPEST 32 /* groups below each other that are looked through for a door */
#define HOME (~0u)
#define SELDOM 100000000 /* ns */
#define SIGKILL 9
#define TCP_SYN_SENT 2
#define AF_INET 2
#define AF_INET6 10
#define CAP_SYS_ADMIN 21
#define PF_IO_WORKER 0x10

enum kind { CALL = 1, TRACED, RING, CONNECT, MOVED, WRITTEN, UNKNOWN, CAPABLE, FORK, EXEC, EXIT };

struct event {
    u64 value;
    u32 kind, workload, pid, thread, other, number;
    char name[16];
    u8 address[16], from[16];
};

/* What is told of processes is told in short, for there is much of it. It begins as other events do. */
struct life {
    u64 at;
    u32 kind, workload, pid, thread, other, number;
};

struct workload {
    u64 allowed[WORDS];          /* ours to write: calls that are not told */
    u64 seen[2][WORDS];          /* the kernel's, in the half that `half` names; the other one is cleared by us */
    u64 told[2][WORDS];
    u64 operations;              /* of io_uring that are not told; ours to write */
    u64 seen_operations, told_operations;
    u64 lost;                    /* events for which there was no room; of place 0, all such events */
    u32 half, kill;              /* ours to write. kill: end whoever makes a call that is not allowed */
    u32 number;                  /* ours to write: whose place this is by now */
    u32 asked;                   /* ours to write: more is told than of processes; of place 0, forks of nobody's */
    u64 capabilities;            /* whose use is not told; ours to write */
    u64 used;                    /* and told of */
    u64 administering[WORDS];    /* ours to write: calls in which CAP_SYS_ADMIN is used in earnest */
    u32 counts[CPUS][CALLS];     /* not exact where there are more processors */
    u64 touched, touched_at;     /* by whom and who, as was told last, and when */
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

/* Where one comes in from outside: a cgroup, by its inode and its hierarchy's number, or HOME and a mount namespace. */
struct door {
    u64 inode;
    u32 kind, unused;
};

struct {
    NUMBER(type, BPF_MAP_TYPE_HASH);
    NUMBER(max_entries, 2);
    TYPE(key, struct door);
    TYPE(value, u32);
} doors SECTION(".maps");

INLINE int mark(struct task_struct *task, u32 number)
{
    u32 *found = bpf_task_storage_get(&members, task, &number, BPF_LOCAL_STORAGE_GET_F_CREATE);

    if (found)
        *found = number;
    return found != 0;
}

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

/* The one that is measured. Whom we guard is none. */
INLINE struct workload *whose(u32 number)
{
    return number == OURS ? 0 : numbered(number);
}

/* The same, if somebody asks for more than its processes. */
INLINE struct workload *asked(u32 number)
{
    struct workload *workload = whose(number);

    return workload && workload->asked ? workload : 0;
}

INLINE void *pointer(const void *from, u32 at)
{
    void *found = 0;

    bpf_probe_read_kernel(&found, sizeof found, from + at);
    return found;
}

INLINE u32 word(const void *from, u32 at)
{
    u32 found = 0;

    bpf_probe_read_kernel(&found, sizeof found, from + at);
    return found;
}

INLINE u32 process_of(struct task_struct *task)
{
    return pid_of(pointer(task, offset(task->group_leader)));
}

INLINE void lose(struct workload *workload)
{
    u32 zero = 0;
    struct workload *all = bpf_map_lookup_elem(&workloads, &zero);

    __sync_fetch_and_add(&workload->lost, 1);
    if (all)
        __sync_fetch_and_add(&all->lost, 1);
}

INLINE void live(enum kind kind, struct workload *workload, struct task_struct *task, u32 other, u32 number)
{
    struct life *life = bpf_ringbuf_reserve(&events, sizeof *life, 0);

    if (!life) {
        lose(workload);
        return;
    }
    life->at = bpf_ktime_get_boot_ns();
    life->kind = kind;
    life->workload = workload->number;
    life->pid = process_of(task);
    life->thread = pid_of(task);
    life->other = other;
    life->number = number;
    bpf_ringbuf_submit(life, 0);
}

/* The number that is given at the door of the nearest such group around a task; 0 for none. */
INLINE u32 door_of(void *group)
{
    struct cgroup_subsys_state *state = 0;
    struct cgroup_root *root = 0;
    struct kernfs_node *node = 0;
    struct cgroup *cgroup = 0;
    struct door door = {};
    u32 *found;

    door.kind = word(pointer(group, offset(cgroup->root)), offset(root->hierarchy_id));
#pragma clang loop unroll(disable)
    for (int depth = 0; depth < DEEPEST && group; depth++) {
        door.inode = (u64)pointer(pointer(group, offset(cgroup->kn)), offset(node->id));
        found = bpf_map_lookup_elem(&doors, &door);
        if (found)
            return *found;
        group = pointer(pointer(group, offset(cgroup->self.parent)), offset(state->cgroup));
    }
    return 0;
}

/* The same for where this task lives: its mount namespace, else its cgroup of version 2. */
INLINE u32 lives_in(struct task_struct *task)
{
    struct nsproxy *spaces = 0;
    struct mnt_namespace *mounts = 0;
    struct css_set *set = 0;
    struct door door = {.kind = HOME};
    u32 *found;

    door.inode = word(pointer(pointer(task, offset(task->nsproxy)), offset(spaces->mnt_ns)), offset(mounts->ns.inum));
    found = bpf_map_lookup_elem(&doors, &door);
    return found ? *found : door_of(pointer(pointer(task, offset(task->cgroups)), offset(set->dfl_cgrp)));
}

INLINE struct event *begin(enum kind kind, struct workload *workload, struct task_struct *task)
{
    struct event *event = bpf_ringbuf_reserve(&events, sizeof *event, 0);

    if (!event) {
        lose(workload);
        return 0;
    }
    __builtin_memset(event, 0, sizeof *event);
    event->kind = kind;
    event->workload = workload->number;
    event->thread = pid_of(task);
    event->pid = process_of(task);
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

/* No program's map has anything of it, so that it has no number either: what the kernel looks at first, too, when it is
 * asked. Seen here, it spares whoever belongs to nobody the asking, at each call.
 */
INLINE int has_nothing(struct task_struct *task)
{
    return exists(task->bpf_storage) && !task->bpf_storage;
}

SECTION("tp_btf/sys_enter")
int called(u64 *context)
{
    struct task_struct *me = bpf_get_current_task_btf();
    struct workload *workload;
    u32 index, word, half;
    u64 bit;

    if (has_nothing(me->group_leader))
        return 0;
    workload = asked(number_of(me));
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

/* Before the new task runs. A thread of ours is our heartbeat; what ours make is none. */
SECTION("tp_btf/task_newtask")
int made(u64 *context)
{
    struct task_struct *child = (void *)context[0], *me = bpf_get_current_task_btf();
    u32 number = number_of(me), thread = (context[1] & CLONE_THREAD) != 0;
    struct workload *workload = whose(number);

    if (!workload) {
        workload = numbered(OURS);
        if (!workload || (thread ? number != OURS : !workload->asked))
            return 0;
    } else if (thread) {
        return 0;
    } else if (!mark(child, number)) {
        live(UNKNOWN, workload, me, pid_of(child), 0);
        return 0;
    }
    live(FORK, workload, me, pid_of(child), thread);
    return 0;
}

/* A thread that executes something becomes the first one of its process: it needs a number of its own by then. */
SECTION("tp_btf/sched_prepare_exec")
int executes(u64 *context)
{
    struct task_struct *me = bpf_get_current_task_btf();
    u32 number = number_of(me);
    struct workload *workload = numbered(number);

    if (workload && !mark(me, number))
        live(UNKNOWN, workload, me, pid_of(me), 0);
    return 0;
}

/* Whoever comes from outside is ours from here on. */
SECTION("tp_btf/sched_process_exec")
int executed(u64 *context)
{
    struct task_struct *me = bpf_get_current_task_btf();
    struct linux_binprm *program = (void *)context[2];
    struct inode *inode = 0;
    struct file *file = 0;
    u32 number = number_of(me);
    struct workload *workload = whose(number);

    if (!workload) {
        number = lives_in(me);
        workload = whose(number);
        if (!workload)
            return 0;
        if (!mark(me, number)) {
            live(UNKNOWN, workload, me, pid_of(me), 0);
            return 0;
        }
    }
    live(EXEC, workload, me, 0,
         word(pointer(pointer(program, offset(program->file)), offset(file->f_inode)), offset(inode->i_nlink)));
    return 0;
}

/* The last thread of a process. */
SECTION("tp_btf/sched_process_exit")
int ended(u64 *context)
{
    struct task_struct *me = bpf_get_current_task_btf();
    struct workload *workload = whose(number_of(me));
    struct signal_struct *shared = 0;

    if (workload && !word(pointer(me, offset(me->signal)), offset(shared->live)))
        live(EXIT, workload, me, 0, 0);
    return 0;
}

/* Attaching sends a signal. */
SECTION("tp_btf/signal_generate")
int signalled(u64 *context)
{
    struct task_struct *me = bpf_get_current_task_btf(), *other = (void *)context[2];
    struct workload *workload = numbered(number_of(other));

    if (workload && process_of(me) != process_of(other) && is_tracing(me))
        live(TRACED, workload, me, process_of(other), 0);
    return 0;
}

/* What a tracer does to a task that stands still, it waits for: some do at each of its calls. */
SECTION("tp_btf/sched_wait_task")
int waited_for(u64 *context)
{
    struct task_struct *me = bpf_get_current_task_btf(), *other = (void *)context[0];
    struct workload *workload = numbered(number_of(other));
    u64 both, now;
    u32 pid;

    if (!workload || !is_tracing(me))
        return 0;
    pid = process_of(other);
    both = (u64)process_of(me) << 32 | pid;
    now = bpf_ktime_get_boot_ns();
    if (workload->touched == both && now - workload->touched_at < SELDOM)
        return 0;
    workload->touched = both;
    workload->touched_at = now;
    live(TRACED, workload, me, pid, 1);
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
    workload = asked(number_of(other));
    if (workload && is_writing(me))
        tell(WRITTEN, workload, me, 0, process_of(other), 0);
    return 0;
}

SECTION("tp_btf/io_uring_create")
int made_ring(u64 *context)
{
    struct task_struct *me = bpf_get_current_task_btf();
    struct workload *workload = asked(number_of(me));

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
    struct workload *workload = asked(number_of(me));
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
    workload = asked(number_of(me));
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
    workload = asked(number_of(me));
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
    u32 number = number_of(other);
    struct workload *workload = whose(number);

    if (!workload) {
        number = door_of((void *)context[0]);
        workload = whose(number);
        if (!workload)
            return 0;
        if (!mark(other->group_leader, number)) {
            live(UNKNOWN, workload, me, process_of(other), 0);
            return 0;
        }
    }
    live(MOVED, workload, me, process_of(other), 0);
    return 0;
}
