// SPDX-License-Identifier: Apache-2.0 OR MIT OR GPL-2.0-only
//
// What the kernel is asked to tell about the processes of watched sessions: programs that are run, files that are
// opened, TCP connections that are made.
//
// Four tracepoints do it. `sched_process_exec` has what was really run, whatever the system call was and whatever
// another thread wrote over its arguments. `sys_exit` has the result of opening files, and of programs that could not
// be run; 32-bit programs are seen too. `io_uring_submit_req`, in Linux 6.4 and newer, has files that are
// opened without a system call. `inet_sock_set_state` has connections at the moment the kernel sends the first packet.
// Tracepoints run without being interrupted by another task on the same processor, so no event is skipped because the
// same program was in the middle of another one.
//
// Nothing is included: types of the kernel have the members used here and no more, and their places are found when the
// program is loaded (BTF relocation). The layout of records is read by src/record.rs.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int s32;
typedef unsigned long long u64;
typedef long long s64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define KERNEL __attribute__((preserve_access_index))
#define PLACE(member) __builtin_preserve_access_index(&(member))
#define MAP_KIND(name, value) int(*name)[value]
#define MAP_TYPE(name, type) type *name

// Some helpers are for programs under the GPL only; this file, and this file alone, may be used under it too.
char LICENSE[] SEC("license") = "Dual MIT/GPL";

// Helpers by number, see bpf-helpers(7).
static void *(*map_lookup)(void *map, const void *key) = (void *)1;
static u64 (*current_pid_tgid)(void) = (void *)14;
static long (*current_comm)(void *to, u32 size) = (void *)16;
static void *(*current_task)(void) = (void *)35;
static long (*read_user)(void *to, u32 size, const void *from) = (void *)112;
static long (*read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static long (*read_user_str)(void *to, u32 size, const void *from) = (void *)114;
static long (*read_kernel_str)(void *to, u32 size, const void *from) = (void *)115;
static u64 (*nanoseconds_since_boot)(void) = (void *)125;
static u64 (*current_ancestor_cgroup_id)(int level) = (void *)123;
static long (*ring_output)(void *ring, void *data, u64 size, u64 flags) = (void *)130;

enum map_type { HASH = 1, PERCPU_ARRAY = 6, RING = 27 };

// Bits of what is watched, and the index of each kind's counter.
enum kind { COMMAND = 0, DISK = 1, NETWORK = 2, KINDS = 3 };

// Longest path and longest list of arguments that are told.
#define PATH_SIZE 4096
#define ARGUMENTS_SIZE 4096
// Arguments of a program that could not be run which are told.
#define FAILED_ARGUMENTS 32
// Levels of the cgroup tree in which a session's group is looked for.
#define LEVELS 16

struct session {
	u32 watched; // 1 << kind
	u32 unused;
	u64 lost[KINDS];
};

struct {
	MAP_KIND(type, HASH);
	MAP_KIND(max_entries, 16384);
	MAP_TYPE(key, u64);
	MAP_TYPE(value, struct session);
} sessions SEC(".maps");

// Their sizes are set when the program is loaded.
struct {
	MAP_KIND(type, RING);
	MAP_KIND(max_entries, 32768);
} commands SEC(".maps"), disk SEC(".maps"), network SEC(".maps");

struct origin {
	u64 cgroup;
	u64 time; // nanoseconds since the machine was started
	u32 pid;
	u32 ppid;
	u8 program[16];
};

struct command {
	struct origin origin;
	s32 result;
	u32 script; // whether the arguments begin with those of an interpreter
	u32 arguments; // bytes of them, each ended by 0; the path follows
	u32 path; // bytes of the path
	u8 text[ARGUMENTS_SIZE + PATH_SIZE];
};

struct opened {
	struct origin origin;
	s32 result;
	s32 flags;
	u32 unused;
	u32 path;
	u8 text[PATH_SIZE];
};

struct connected {
	struct origin origin;
	u8 source[16];
	u8 destination[16];
	u16 version;
	u16 port;
	u32 unused;
};

// Records are put together here, because they are larger than the stack. Each program has its own.
struct {
	MAP_KIND(type, PERCPU_ARRAY);
	MAP_KIND(max_entries, 1);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct command);
} ran_scratch SEC(".maps"), failed_scratch SEC(".maps");

struct {
	MAP_KIND(type, PERCPU_ARRAY);
	MAP_KIND(max_entries, 1);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct opened);
} opened_scratch SEC(".maps"), submitted_scratch SEC(".maps");

// The kernel's types.

struct mm_struct {
	unsigned long arg_start;
	unsigned long arg_end;
} KERNEL;

struct thread_info {
	unsigned long flags;
	u32 status;
} KERNEL;

struct task_struct {
	struct thread_info thread_info;
	struct task_struct *real_parent;
	struct mm_struct *mm;
	s32 tgid;
} KERNEL;

struct linux_binprm {
	const char *filename;
	const char *interp;
} KERNEL;

struct open_how {
	u64 flags;
};

struct filename {
	const char *name;
} KERNEL;

struct io_open {
	struct filename *filename;
	struct open_how how;
} KERNEL;

struct io_cmd_data {
	void *file;
} KERNEL;

struct io_kiocb {
	struct io_cmd_data cmd;
	u8 opcode;
} KERNEL;

struct in6_addr {
	u8 bytes[16];
};

struct sock_common {
	u16 skc_family;
	u16 skc_dport;
	u32 skc_daddr;
	u32 skc_rcv_saddr;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
} KERNEL;

struct sock {
	struct sock_common __sk_common;
	u16 sk_protocol;
} KERNEL;

// System calls, by processor.

enum call { OTHER, OPEN, OPENAT, OPENAT2, CREAT, EXECVE, EXECVEAT };

#if defined(TARGET_x86_64)

struct pt_regs {
	unsigned long bx, cx, dx, si, di, orig_ax;
} KERNEL;

// Set while a 32-bit system call is served, see arch/x86/include/asm/thread_info.h.
#define TS_COMPAT 2
// Set in the numbers of the x32 interface.
#define X32 0x40000000

INLINE int is_compat(struct task_struct *task)
{
	u32 status = 0;
	read_kernel(&status, sizeof(status), PLACE(task->thread_info.status));
	return !!(status & TS_COMPAT);
}

INLINE u32 number_of(struct pt_regs *regs)
{
	return regs->orig_ax;
}

// Numbers of the 32-bit interface that are this processor's, see compat_call.
#define COMPAT_OPENAT 295
#define COMPAT_EXECVEAT 358

INLINE enum call native_call(u32 number)
{
	switch (number & ~X32) {
	case 2: return OPEN;
	case 59: case 520: return EXECVE;
	case 85: return CREAT;
	case 257: return OPENAT;
	case 322: case 545: return EXECVEAT;
	case 437: return OPENAT2;
	}
	return OTHER;
}

INLINE unsigned long argument(struct pt_regs *regs, int compat, int n)
{
	switch (n) {
	case 0: return compat ? (u32)regs->bx : regs->di;
	case 1: return compat ? (u32)regs->cx : regs->si;
	default: return compat ? (u32)regs->dx : regs->dx;
	}
}

#elif defined(TARGET_aarch64)

struct pt_regs {
	u64 regs[31];
	u64 orig_x0;
	s32 syscallno;
} KERNEL;

// arch/arm64/include/asm/thread_info.h
#define TIF_32BIT 22

INLINE int is_compat(struct task_struct *task)
{
	unsigned long flags = 0;
	read_kernel(&flags, sizeof(flags), PLACE(task->thread_info.flags));
	return (flags >> TIF_32BIT) & 1;
}

INLINE u32 number_of(struct pt_regs *regs)
{
	return regs->syscallno;
}

// Numbers of the 32-bit interface that are this processor's, see compat_call.
#define COMPAT_OPENAT 322
#define COMPAT_EXECVEAT 387

INLINE enum call native_call(u32 number)
{
	switch (number) {
	case 56: return OPENAT;
	case 221: return EXECVE;
	case 281: return EXECVEAT;
	case 437: return OPENAT2;
	}
	return OTHER;
}

// The first argument's register has the result by now.
INLINE unsigned long argument(struct pt_regs *regs, int compat, int n)
{
	u64 value = n == 0 ? regs->orig_x0 : n == 1 ? regs->regs[1] : regs->regs[2];
	return compat ? (u32)value : value;
}

#else
#error "the registers of system calls are known for x86_64 and aarch64 only"
#endif

// Both processors' 32-bit interfaces began with the same system calls, and end with the same.
INLINE enum call compat_call(u32 number)
{
	switch (number) {
	case 5: return OPEN;
	case 8: return CREAT;
	case 11: return EXECVE;
	case COMPAT_OPENAT: return OPENAT;
	case COMPAT_EXECVEAT: return EXECVEAT;
	case 437: return OPENAT2;
	}
	return OTHER;
}

// The watched session that the current task belongs to, and its cgroup. Groups made below a session's are its own.
INLINE struct session *session_of_current(enum kind kind, u64 *cgroup)
{
	for (int level = 1; level < LEVELS; level++) {
		u64 id = current_ancestor_cgroup_id(level);
		if (!id)
			return 0;
		struct session *session = map_lookup(&sessions, &id);
		if (session) {
			*cgroup = id;
			return session->watched & (1 << kind) ? session : 0;
		}
	}
	return 0;
}

INLINE void fill(struct origin *origin, u64 cgroup)
{
	struct task_struct *task = current_task();
	s32 parent = 0;
	struct task_struct *real_parent = 0;
	origin->cgroup = cgroup;
	origin->time = nanoseconds_since_boot();
	origin->pid = current_pid_tgid() >> 32;
	read_kernel(&real_parent, sizeof(real_parent), PLACE(task->real_parent));
	if (real_parent)
		read_kernel(&parent, sizeof(parent), PLACE(real_parent->tgid));
	origin->ppid = parent;
	current_comm(origin->program, sizeof(origin->program));
}

INLINE void tell(void *ring, void *data, u64 size, struct session *session, enum kind kind)
{
	if (ring_output(ring, data, size, 0))
		__sync_fetch_and_add(&session->lost[kind], 1);
}

// Sends a command whose text has `arguments` and then `path` bytes.
INLINE void tell_command(struct command *record, u32 arguments, u32 path, struct session *session)
{
	record->arguments = arguments;
	record->path = path;
	u64 size = __builtin_offsetof(struct command, text) + arguments + path;
	if (size <= sizeof(*record))
		tell(&commands, record, size, session, COMMAND);
}

SEC("tp_btf/sched_process_exec")
int ran(u64 *context)
{
	struct linux_binprm *program = (void *)context[2];
	u64 cgroup;
	struct session *session = session_of_current(COMMAND, &cgroup);
	if (!session)
		return 0;
	u32 zero = 0;
	struct command *record = map_lookup(&ran_scratch, &zero);
	if (!record)
		return 0;
	fill(&record->origin, cgroup);
	record->result = 0;
	record->script = program->interp != program->filename;

	// The kernel has just copied the arguments to the new program's stack.
	struct task_struct *task = (void *)context[0];
	unsigned long start = task->mm->arg_start, end = task->mm->arg_end;
	u64 length = end - start;
	if (length > ARGUMENTS_SIZE)
		length = ARGUMENTS_SIZE;
	if (read_user(record->text, length, (void *)start))
		length = 0;
	long path = read_kernel_str(record->text + length, PATH_SIZE, program->filename);
	if (path < 0)
		path = 0;
	tell_command(record, length, path, session);
	return 0;
}

// A program could not be run: its memory is still that of the caller, which has the arguments.
INLINE void failed(struct pt_regs *regs, enum call call, int compat, s32 result)
{
	u64 cgroup;
	struct session *session = session_of_current(COMMAND, &cgroup);
	if (!session)
		return;
	u32 zero = 0;
	struct command *record = map_lookup(&failed_scratch, &zero);
	if (!record)
		return;
	fill(&record->origin, cgroup);
	record->result = result;
	record->script = 0;

	int first = call == EXECVEAT;
	const char *path = (void *)(first ? argument(regs, compat, 1) : argument(regs, compat, 0));
	const u8 *list = (void *)(first ? argument(regs, compat, 2) : argument(regs, compat, 1));
	u32 length = 0;
	for (int n = 0; n < FAILED_ARGUMENTS; n++) {
		u64 text = 0;
		u32 width = compat ? 4 : 8;
		if (read_user(&text, width, list + n * width) || !text)
			break;
		if (length >= ARGUMENTS_SIZE)
			break;
		long got = read_user_str(record->text + length, ARGUMENTS_SIZE, (void *)text);
		if (got < 0)
			break;
		length += got;
	}
	if (length > ARGUMENTS_SIZE) // the last one is cut
		length = ARGUMENTS_SIZE;
	long got = read_user_str(record->text + length, PATH_SIZE, path);
	if (got < 0)
		got = 0;
	tell_command(record, length, got, session);
}

INLINE void opened(struct pt_regs *regs, enum call call, int compat, s32 result)
{
	u64 cgroup;
	struct session *session = session_of_current(DISK, &cgroup);
	if (!session)
		return;
	u32 zero = 0;
	struct opened *record = map_lookup(&opened_scratch, &zero);
	if (!record)
		return;
	fill(&record->origin, cgroup);
	record->result = result;
	record->unused = 0;

	int at = call == OPENAT || call == OPENAT2;
	const char *path = (void *)(at ? argument(regs, compat, 1) : argument(regs, compat, 0));
	if (call == OPENAT2) {
		struct open_how how = {};
		read_user(&how, sizeof(how), (void *)argument(regs, compat, 2));
		record->flags = how.flags;
	} else if (call == CREAT) {
		record->flags = 01 | 0100 | 01000; // O_WRONLY, O_CREAT, O_TRUNC
	} else {
		record->flags = at ? argument(regs, compat, 2) : argument(regs, compat, 1);
	}
	// The kernel has just read it, so it is in memory.
	long got = read_user_str(record->text, PATH_SIZE, path);
	if (got < 0)
		got = 0;
	if (got > PATH_SIZE)
		got = PATH_SIZE;
	record->path = got;
	tell(&disk, record, __builtin_offsetof(struct opened, text) + got, session, DISK);
}

SEC("tp_btf/sys_exit")
int called(u64 *context)
{
	struct pt_regs *regs = (void *)context[0];
	s64 result = context[1];
	u32 number = number_of(regs);
	// Every system call of the machine comes here: most go at once.
	enum call native = native_call(number), foreign = compat_call(number);
	if (native == OTHER && foreign == OTHER)
		return 0;
	int compat = is_compat(current_task());
	enum call call = compat ? foreign : native;
	if (call == OTHER)
		return 0;
	if (call != EXECVE && call != EXECVEAT)
		opened(regs, call, compat, result);
	else if (result < 0)
		failed(regs, call, compat, result);
	return 0;
}

// include/uapi/linux/io_uring.h
#define IORING_OP_OPENAT 18
#define IORING_OP_OPENAT2 28

// Files may be opened without a system call for each. What becomes of it is not known yet when it is asked for.
SEC("tp_btf/io_uring_submit_req")
int submits(u64 *context)
{
	struct io_kiocb *request = (void *)context[0];
	if (request->opcode != IORING_OP_OPENAT && request->opcode != IORING_OP_OPENAT2)
		return 0;
	u64 cgroup;
	struct session *session = session_of_current(DISK, &cgroup);
	if (!session)
		return 0;
	u32 zero = 0;
	struct opened *record = map_lookup(&submitted_scratch, &zero);
	if (!record)
		return 0;
	fill(&record->origin, cgroup);
	record->result = 0;
	record->unused = 0;

	struct io_open *open = (void *)PLACE(request->cmd);
	struct filename *filename = 0;
	const char *path = 0;
	u64 flags = 0;
	read_kernel(&filename, sizeof(filename), PLACE(open->filename));
	read_kernel(&flags, sizeof(flags), PLACE(open->how.flags));
	read_kernel(&path, sizeof(path), PLACE(filename->name));
	record->flags = flags;
	long got = read_kernel_str(record->text, PATH_SIZE, path);
	if (got < 0)
		got = 0;
	if (got > PATH_SIZE)
		got = PATH_SIZE;
	record->path = got;
	tell(&disk, record, __builtin_offsetof(struct opened, text) + got, session, DISK);
	return 0;
}

// States and protocols of sockets: include/net/tcp_states.h, include/uapi/linux/in.h.
#define TCP_SYN_SENT 2
#define IPPROTO_TCP 6
#define AF_INET 2
#define AF_INET6 10

SEC("tp_btf/inet_sock_set_state")
int connects(u64 *context)
{
	struct sock *socket = (void *)context[0];
	if ((s32)context[2] != TCP_SYN_SENT || socket->sk_protocol != IPPROTO_TCP)
		return 0;
	u64 cgroup;
	struct session *session = session_of_current(NETWORK, &cgroup);
	if (!session)
		return 0;
	struct connected record = {};
	fill(&record.origin, cgroup);
	record.port = __builtin_bswap16(socket->__sk_common.skc_dport);
	if (socket->__sk_common.skc_family == AF_INET6) {
		record.version = 6;
		read_kernel(record.source, 16, &socket->__sk_common.skc_v6_rcv_saddr);
		read_kernel(record.destination, 16, &socket->__sk_common.skc_v6_daddr);
	} else {
		record.version = 4;
		read_kernel(record.source, 4, &socket->__sk_common.skc_rcv_saddr);
		read_kernel(record.destination, 4, &socket->__sk_common.skc_daddr);
	}
	tell(&network, &record, sizeof(record), session, NETWORK);
	return 0;
}
