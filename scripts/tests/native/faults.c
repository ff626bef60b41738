/* Runs a program whose changes of files fail when told so, without privileges.
 *
 *     faults CONTROL PROGRAM [ARGUMENT...]
 *
 * CONTROL is a file. While it is empty, nothing fails. A line "sync 5" has every fsync and fdatasync
 * fail with error number 5; "write", "create" and "name" stand for writes and changes of lengths, for
 * opens that create, and for renames and removals. What fails is not done.
 *
 * Not a library put before libc: the program makes these system calls itself. A seccomp filter asks a
 * second process about each of them; the program keeps the process id that it was started with.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static void die(const char *what) {
    fprintf(stderr, "faults: %s: %s\n", what, strerror(errno));
    _exit(125);
}

static const char *kind(int call) {
    switch (call) {
    case SYS_fsync:
    case SYS_fdatasync:
        return "sync";
    case SYS_pwrite64:
    case SYS_ftruncate:
    case SYS_fallocate:
        return "write";
    case SYS_openat:
        return "create";
    default:
        return "name";
    }
}

/* The error with which calls of this kind fail now; 0 if they do not. */
static int chosen(const char *control, const char *of) {
    char line[64], name[16];
    int number, found = 0;
    FILE *file = fopen(control, "re");
    if (!file)
        return 0;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "%15s %d", name, &number) == 2 && strcmp(name, of) == 0)
            found = number;
    fclose(file);
    return found;
}

/* Answers until the last process under the filter has ended. */
static void supervise(const char *control, int listener) {
    struct seccomp_notif asked;
    struct seccomp_notif_resp answer;
    for (;;) {
        struct pollfd ready = {.fd = listener, .events = POLLIN};
        if (poll(&ready, 1, -1) < 0 && errno != EINTR)
            die("poll");
        if (ready.revents & POLLHUP)
            _exit(0);
        if (!(ready.revents & POLLIN))
            continue;
        memset(&asked, 0, sizeof asked);
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked) < 0)
            continue; /* It was killed meanwhile. */
        memset(&answer, 0, sizeof answer);
        answer.id = asked.id;
        answer.error = -chosen(control, kind(asked.data.nr));
        if (answer.error == 0)
            answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
    }
}

static int install(void) {
#define ASK(call) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (call), 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF)
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        ASK(SYS_fsync),
        ASK(SYS_fdatasync),
        ASK(SYS_pwrite64),
        ASK(SYS_ftruncate),
        ASK(SYS_fallocate),
        ASK(SYS_renameat),
        ASK(SYS_renameat2),
        ASK(SYS_unlinkat),
#ifdef SYS_rename
        ASK(SYS_rename),
        ASK(SYS_unlink),
#endif
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_CREAT, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        die("no_new_privs");
    int listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    if (listener < 0)
        die("seccomp");
    return listener;
}

/* Sends, or receives, a file descriptor. */
static int pass(int channel, int descriptor) {
    char byte = 0, space[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec bytes = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &bytes, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (descriptor < 0) {
        if (recvmsg(channel, &message, MSG_CMSG_CLOEXEC) < 1 || !(header = CMSG_FIRSTHDR(&message)))
            _exit(0);
        memcpy(&descriptor, CMSG_DATA(header), sizeof descriptor);
        return descriptor;
    }
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
    if (sendmsg(channel, &message, 0) < 0)
        die("sendmsg");
    return descriptor;
}

int main(int count, char **arguments) {
    int channel[2];
    if (count < 3) {
        fprintf(stderr, "usage: faults CONTROL PROGRAM [ARGUMENT...]\n");
        return 125;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel) < 0)
        die("socketpair");
    pid_t child = fork();
    if (child < 0)
        die("fork");
    if (child == 0) {
        close(channel[0]);
        setsid(); /* Signals to the program's group are not for this one. */
        supervise(arguments[1], pass(channel[1], -1));
    }
    close(channel[1]);
    int listener = install();
    pass(channel[0], listener);
    close(listener);
    execvp(arguments[2], arguments + 2);
    die(arguments[2]);
}
