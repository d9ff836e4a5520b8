/*
 * Verifies messages with libopendkim, for comparison.
 *
 * Reads cases from standard input until it ends:
 *
 *	REPEAT KEYS LENGTH LF
 *	then KEYS times "NAME LENGTH LF" and as many octets of record, which
 *	is "?" if nobody answers,
 *	then LENGTH octets of message, with CRLF.
 *
 * Answers each with one line: for each signature "index:error:passed", where error
 * is a DKIM_SIGERROR and passed is 1 if body hash and signature fit; then
 * "stat=" and the status of the message, "cpu=" and the CPU time of all
 * repetitions in nanoseconds.
 */
#define _GNU_SOURCE /* memmem */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <opendkim/dkim.h>

#define MAXKEYS 64
#define CHUNK 65535

static struct { char *name, *record; } keys[MAXKEYS];
static int nkeys;

static void die(const char *why)
{
	fprintf(stderr, "libopendkim.c: %s\n", why);
	exit(1);
}

static DKIM_CBSTAT lookup(DKIM *dkim, DKIM_SIGINFO *sig, unsigned char *buf, size_t size)
{
	char name[1024];
	(void)dkim;
	snprintf(name, sizeof name, "%s._domainkey.%s", (char *)dkim_sig_getselector(sig), (char *)dkim_sig_getdomain(sig));
	for (int i = 0; i < nkeys; i++) {
		if (strcasecmp(keys[i].name, name) != 0)
			continue;
		if (strcmp(keys[i].record, "?") == 0)
			return DKIM_CBSTAT_TRYAGAIN;
		if (strlen(keys[i].record) >= size)
			return DKIM_CBSTAT_ERROR;
		strcpy((char *)buf, keys[i].record);
		return DKIM_CBSTAT_CONTINUE;
	}
	return DKIM_CBSTAT_NOTFOUND;
}

/* split finds the fields; returns the offset of the body. */
static size_t split(char *m, size_t n, char **field, size_t *length, int *count, int max)
{
	size_t at = 0;
	*count = 0;
	while (at < n) {
		size_t start = at, end;
		if (n - at >= 2 && m[at] == '\r' && m[at + 1] == '\n')
			return at + 2;
		do {
			char *lf = memmem(m + at, n - at, "\r\n", 2);
			if (lf == NULL)
				die("header without an end");
			end = lf - m;
			at = end + 2;
		} while (at < n && (m[at] == ' ' || m[at] == '\t'));
		if (*count == max)
			die("too many fields");
		field[*count] = m + start;
		length[(*count)++] = end - start;
	}
	return n;
}

static long long cpu(void)
{
	struct rusage r;
	getrusage(RUSAGE_SELF, &r);
	return (r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1000000000LL + (r.ru_utime.tv_usec + r.ru_stime.tv_usec) * 1000LL;
}

static void verify(DKIM_LIB *lib, char **field, size_t *length, int count, char *body, size_t size, bool print)
{
	DKIM_STAT stat;
	DKIM *dkim = dkim_verify(lib, (unsigned char *)"test", NULL, &stat);
	DKIM_SIGINFO **sigs;
	int nsigs = 0;
	if (dkim == NULL)
		die("dkim_verify");
	for (int i = 0; i < count; i++)
		dkim_header(dkim, (unsigned char *)field[i], length[i]);
	stat = dkim_eoh(dkim);
	if (stat == DKIM_STAT_OK) {
		for (size_t at = 0; at < size; at += CHUNK)
			dkim_body(dkim, (unsigned char *)body + at, size - at < CHUNK ? size - at : CHUNK);
		stat = dkim_eom(dkim, NULL);
	}
	if (dkim_getsiglist(dkim, &sigs, &nsigs) != DKIM_STAT_OK)
		nsigs = 0;
	/* dkim_eom is content with the first one that passes */
	for (int i = 0; i < nsigs; i++) {
		dkim_sig_process(dkim, sigs[i]);
		if (print)
			printf(" %d:%d:%d", i, dkim_sig_geterror(sigs[i]), DKIM_SIG_CHECK(sigs[i]) ? 1 : 0);
	}
	if (print)
		printf(" stat=%d", stat);
	dkim_free(dkim);
}

int main(void)
{
	DKIM_LIB *lib = dkim_init(NULL, NULL);
	u_int flags = DKIM_LIBFLAGS_BADSIGHANDLES;
	int repeat, n;
	size_t size;
	if (lib == NULL)
		die("dkim_init");
	dkim_options(lib, DKIM_OP_SETOPT, DKIM_OPTS_FLAGS, &flags, sizeof flags);
	dkim_set_key_lookup(lib, lookup);
	while (scanf("%d %d %zu", &repeat, &n, &size) == 3 && getchar() == '\n') {
		static char *field[10000];
		static size_t length[10000];
		char *message = malloc(size + 1);
		int count;
		if (n > MAXKEYS || message == NULL)
			die("too much");
		for (nkeys = 0; nkeys < n; nkeys++) {
			char name[1024];
			size_t length;
			if (scanf("%1023s %zu", name, &length) != 2 || getchar() != '\n')
				die("bad key");
			keys[nkeys].name = strdup(name);
			keys[nkeys].record = calloc(1, length + 1);
			if (fread(keys[nkeys].record, 1, length, stdin) != length)
				die("short key");
		}
		if (fread(message, 1, size, stdin) != size)
			die("short message");
		size_t start = split(message, size, field, length, &count, 10000);
		long long before = cpu();
		for (int i = 1; i < repeat; i++)
			verify(lib, field, length, count, message + start, size - start, false);
		/* the last one tells */
		verify(lib, field, length, count, message + start, size - start, true);
		printf(" cpu=%lld\n", cpu() - before);
		fflush(stdout);
		for (int i = 0; i < nkeys; i++) {
			free(keys[i].name);
			free(keys[i].record);
		}
		free(message);
	}
	dkim_close(lib);
	return 0;
}
