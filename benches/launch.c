/* launch RESULT OUTPUT ERRORS -- COMMAND [ARGUMENT...] ['|' COMMAND...]...
 *
 * Runs a pipeline and writes to RESULT one line for the whole and one for each
 * process: "wall NANOSECONDS", then "STATUS USER_US SYSTEM_US PEAK_KIB".
 *
 * A program of its own because the kernel's count of a process's largest
 * resident set begins with what its parent had when it was started: measured
 * from Python, /bin/true would seem to need Python's memory. This one needs one
 * to two MiB.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STAGES_MAX 8

static void die(const char *what) {
    fprintf(stderr, "error: launch: %s: %s\n", what, strerror(errno));
    exit(125);
}

static int file(const char *path, int append) {
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | (append ? O_APPEND : O_TRUNC), 0600);
    if (fd < 0) die(path);
    return fd;
}

static pid_t start(char **argv, int in, int out, int err) {
    pid_t pid = fork();
    if (pid < 0) die("fork");
    if (pid > 0) return pid;
    if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0) die("dup2");
    execvp(argv[0], argv);
    die(argv[0]);
    return 0;
}

static long micros(struct timeval time) { return time.tv_sec * 1000000L + time.tv_usec; }

int main(int argc, char **argv) {
    pid_t pids[STAGES_MAX];
    char **stages[STAGES_MAX];
    struct rusage used[STAGES_MAX];
    int status[STAGES_MAX], count = 0;
    struct timespec begun, ended;

    if (argc < 6 || strcmp(argv[4], "--") != 0) {
        fprintf(stderr, "usage: launch RESULT OUTPUT ERRORS -- COMMAND [ARGUMENT...] ['|' COMMAND...]...\n");
        return 2;
    }
    stages[count++] = argv + 5;
    for (int i = 5; i < argc; i++) {
        if (strcmp(argv[i], "|") != 0) continue;
        argv[i] = NULL;
        if (count == STAGES_MAX || i + 1 == argc) {
            fprintf(stderr, "error: launch: between 1 and %d commands, none empty\n", STAGES_MAX);
            return 2;
        }
        stages[count++] = argv + i + 1;
    }
    int out = file(argv[2], 0), err = file(argv[3], 1);
    int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (in < 0) die("/dev/null");

    clock_gettime(CLOCK_MONOTONIC, &begun);
    for (int i = 0; i < count; i++) {
        int pipe_ends[2] = {-1, -1};
        if (i + 1 < count && pipe2(pipe_ends, O_CLOEXEC) < 0) die("pipe");
        pids[i] = start(stages[i], in, i + 1 < count ? pipe_ends[1] : out, err);
        close(in);
        if (i + 1 < count) close(pipe_ends[1]);
        in = pipe_ends[0];
    }
    for (int left = count; left > 0;) {
        int how;
        struct rusage usage;
        pid_t pid = wait4(-1, &how, 0, &usage);
        if (pid < 0 && errno != EINTR) die("wait4");
        for (int i = 0; i < count; i++) {
            if (pids[i] != pid) continue;
            status[i] = WIFEXITED(how) ? WEXITSTATUS(how) : 128 + WTERMSIG(how);
            used[i] = usage;
            left--;
        }
    }
    clock_gettime(CLOCK_MONOTONIC, &ended);

    FILE *result = fopen(argv[1], "we");
    if (!result) die(argv[1]);
    fprintf(result, "wall %lld\n", (ended.tv_sec - begun.tv_sec) * 1000000000LL + (ended.tv_nsec - begun.tv_nsec));
    for (int i = 0; i < count; i++)
        fprintf(result, "%d %ld %ld %ld\n", status[i], micros(used[i].ru_utime), micros(used[i].ru_stime), used[i].ru_maxrss);
    return fclose(result) == 0 ? 0 : 1;
}
