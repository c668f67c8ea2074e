/* Whose a task is, and what it is called: for all of our objects, each of which has numbers of its own.
 *
 * The first task of a process that belongs to a workload has a number in `members`, which children take over before they
 * run a single instruction; the measurer writes it to those that it finds by itself. Threads go by their first one.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#pragma once
#include "kernel.h"

struct {
    NUMBER(type, BPF_MAP_TYPE_TASK_STORAGE);
    NUMBER(map_flags, BPF_F_NO_PREALLOC);
    TYPE(key, int);
    TYPE(value, u32);
} members SECTION(".maps");

/* Where the measurer stands: how deep its pid namespace lies, whose numbers are the ones that are told, and where such
 * numbers are kept. One program finds that out for all: each pointer that a program follows by its type costs the kernel
 * a search through all types there are, milliseconds while it is loaded.
 */
struct stand {
    u32 level, pid_at, level_at, numbers_at;
    void *space;
};

struct {
    NUMBER(type, BPF_MAP_TYPE_ARRAY);
    NUMBER(max_entries, 1);
    TYPE(key, u32);
    TYPE(value, struct stand);
} stands SECTION(".maps");

INLINE u32 own(struct task_struct *task)
{
    u32 *found = bpf_task_storage_get(&members, task, 0, 0);
    return found ? *found : 0;
}

/* 0 for nobody's. Threads go by their process's first one. */
INLINE u32 number_of(struct task_struct *task)
{
    return own(task->group_leader);
}

/* As the measurer's pid namespace numbers it; 0 for who is not in that. */
INLINE u32 pid_of(void *task)
{
    u32 zero = 0, level = 0;
    struct stand *stand = bpf_map_lookup_elem(&stands, &zero);
    struct upid found = {};
    void *pid = 0;

    if (!stand)
        return 0;
    bpf_probe_read_kernel(&pid, sizeof pid, task + stand->pid_at);
    bpf_probe_read_kernel(&level, sizeof level, pid + stand->level_at);
    if (stand->level <= level)
        bpf_probe_read_kernel(&found, sizeof found, pid + stand->numbers_at + stand->level * sizeof found);
    return found.ns == stand->space ? found.nr : 0;
}

/* Run once each by the measurer: what a type of the kernel's is numbered, and how deep we are. */
struct question {
    u64 name[8];
    u32 kind, unused;
    s64 answer;
};

SECTION("syscall/find")
int find(struct question *question)
{
    u64 name[8];

    for (int i = 0; i < 8; i++)
        name[i] = question->name[i];
    question->answer = bpf_btf_find_by_name_kind((char *)name, sizeof name, question->kind, 0);
    return 0;
}

SECTION("syscall/stand")
int stand(struct question *question)
{
    struct task_struct *me = bpf_get_current_task_btf();
    struct pid *pid = me->thread_pid;
    struct upid number = {};
    u32 zero = 0;
    struct stand *stand = bpf_map_lookup_elem(&stands, &zero);

    if (!stand)
        return 0;
    stand->level = pid->level;
    stand->pid_at = (void *)&me->thread_pid - (void *)me;
    stand->level_at = (void *)&pid->level - (void *)pid;
    stand->numbers_at = (void *)&pid->numbers - (void *)pid;
    bpf_probe_read_kernel(&number, sizeof number, (void *)pid + stand->numbers_at + stand->level * sizeof number);
    stand->space = number.ns;
    question->answer = 1;
    return 0;
}
