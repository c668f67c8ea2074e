/* What the programs use of the kernel: helpers by number (linux/bpf.h) and, of its structures, the fields that are
 * read. Where those lie the kernel fills in itself when it loads the programs (CO-RE).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int s32;
typedef long long s64;

#define SECTION(name) __attribute__((section(name), used))
#define RELOCATED __attribute__((preserve_access_index))
#define INLINE static inline __attribute__((always_inline))
#define NUMBER(name, value) int(*name)[value]
#define TYPE(name, value) typeof(value) *name
#define exists(field) __builtin_preserve_field_info(field, 2)
#define offset(field) __builtin_preserve_field_info(field, 0)

/* linux/bpf.h: kinds of map, and their flags */
#define BPF_MAP_TYPE_HASH 1
#define BPF_MAP_TYPE_ARRAY 2
#define BPF_MAP_TYPE_RINGBUF 27
#define BPF_MAP_TYPE_TASK_STORAGE 29
#define BPF_F_NO_PREALLOC 1
#define BPF_F_MMAPABLE 1024
#define BPF_LOCAL_STORAGE_GET_F_CREATE 1

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static u32 (*bpf_get_smp_processor_id)(void) = (void *)8;
static long (*bpf_get_current_comm)(void *to, u32 size) = (void *)16;
static long (*bpf_send_signal)(u32 number) = (void *)109;
static long (*bpf_probe_read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static u64 (*bpf_ktime_get_boot_ns)(void) = (void *)125;
static void *(*bpf_ringbuf_reserve)(void *ring, u64 size, u64 flags) = (void *)131;
static void (*bpf_ringbuf_submit)(void *record, u64 flags) = (void *)132;
static u64 (*bpf_get_socket_cookie)(void *socket) = (void *)46;
static void *(*bpf_task_storage_get)(void *map, void *task, void *value, u64 flags) = (void *)156;
static struct task_struct *(*bpf_get_current_task_btf)(void) = (void *)158;
static long (*bpf_btf_find_by_name_kind)(const char *name, int size, u32 kind, int flags) = (void *)167;
static struct pt_regs *(*bpf_task_pt_regs)(struct task_struct *task) = (void *)175;

struct upid {
    int nr;
    void *ns;
};

struct pid {
    u32 level;
    struct upid numbers[1];
} RELOCATED;

struct thread_info {
    unsigned long flags;
    u32 status; /* x86 alone */
} RELOCATED;

struct task_struct {
    struct thread_info thread_info;
    u32 flags;
    struct task_struct *group_leader;
    struct pid *thread_pid;
    struct mm_struct *mm;
    struct signal_struct *signal;
    struct nsproxy *nsproxy;
    struct css_set *cgroups;
    void *bpf_storage;
} RELOCATED;

struct signal_struct {
    struct {
        s32 counter;
    } live; /* threads that have not begun to end */
} RELOCATED;

struct ns_common {
    u32 inum;
} RELOCATED;

struct mnt_namespace {
    struct ns_common ns;
} RELOCATED;

struct nsproxy {
    struct mnt_namespace *mnt_ns;
} RELOCATED;

struct kernfs_node {
    u64 id;
} RELOCATED;

struct cgroup_root {
    s32 hierarchy_id;
} RELOCATED;

struct cgroup_subsys_state {
    struct cgroup *cgroup;
    struct cgroup_subsys_state *parent;
} RELOCATED;

struct cgroup {
    struct cgroup_subsys_state self;
    struct kernfs_node *kn;
    struct cgroup_root *root;
} RELOCATED;

struct css_set {
    struct cgroup *dfl_cgrp;
} RELOCATED;

struct inode {
    u32 i_nlink;
} RELOCATED;

struct file {
    struct inode *f_inode;
} RELOCATED;

struct linux_binprm {
    struct file *file;
} RELOCATED;

struct mm_struct {
    struct task_struct *owner;
} RELOCATED;

struct pt_regs {
    unsigned long orig_ax; /* x86 */
    s32 syscallno;         /* arm64 */
} RELOCATED;

struct in6_addr {
    u64 halves[2];
} __attribute__((packed, aligned(4)));

struct sock_common {
    u16 skc_family, skc_dport;
    u32 skc_daddr, skc_rcv_saddr;
    struct in6_addr skc_v6_daddr, skc_v6_rcv_saddr;
} RELOCATED;

struct sock {
    struct sock_common __sk_common;
} RELOCATED;

struct io_kiocb {
    u8 opcode;
} RELOCATED;
