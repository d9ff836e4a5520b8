package resolver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/miekg/dns"
)

// What came of a question that nobody answered. All but ErrBadName may pass by
// themselves: the caller keeps what it knew and asks again later. None of them
// says anything about the records (RFC 7672 §2.1.1: bogus and indeterminate).
// They are found with errors.Is in the *Error of a look-up.
var (
	// ErrTimeout: no acceptable reply within the time.
	ErrTimeout = errors.New("gave no answer in time")
	// ErrUnreachable: the packet could not be sent, or nobody listens there.
	ErrUnreachable = errors.New("cannot be reached")
	// ErrServFail: SERVFAIL, which is also what a bogus zone gets.
	ErrServFail = errors.New("answered SERVFAIL")
	// ErrRefused: the server will not or cannot answer such a question
	// (REFUSED, NOTIMP, FORMERR and other codes, or a mere referral).
	ErrRefused = errors.New("refused to answer")
	// ErrMalformed: a reply to our question that cannot be read.
	ErrMalformed = errors.New("sent a malformed answer")
	// ErrTruncated: the whole answer could not be had over TCP (RFC 7671 §10.1).
	ErrTruncated = errors.New("truncated its answer, and TCP did not help")
	// ErrChain: a chain of CNAMEs that loops or is longer than 10.
	ErrChain = errors.New("sent an endless CNAME chain")
)

// Mistakes of the caller or of the configuration; asking again does not help.
var (
	// ErrBadName: the name cannot be asked for; no packet was sent.
	ErrBadName = errors.New("not a domain name")
	// ErrNoServers: there is nobody to ask.
	ErrNoServers = errors.New("no name server is configured")
)

// Error is the error of every look-up.
type Error struct {
	Name string // as asked for
	Type string // "MX"
	// Server is the address of the best server that failed; empty when it was
	// not a server that failed.
	Server string
	// Cause wraps one of the sentinels or the context's error.
	Cause error
	// Others holds what the other servers did, in the order asked.
	Others []Failure
}

// Failure is what came of asking one server.
type Failure struct {
	Server string
	Cause  error
}

// Error reads like "MX example.com: 127.0.0.1:53 answered SERVFAIL".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Type + " " + e.Name + ": ")
	if e.Server != "" {
		b.WriteString(e.Server + " ")
	}
	b.WriteString(e.Cause.Error())
	for _, o := range e.Others {
		b.WriteString("; " + o.Server + " " + o.Cause.Error())
	}
	return b.String()
}

// Unwrap gives the cause of the server that counts.
func (e *Error) Unwrap() error { return e.Cause }

// rcodeError is a reply without an answer.
type rcodeError int

func (e rcodeError) Error() string {
	if e == dns.RcodeBadVers {
		return "answered BADVERS" // the library says BADSIG, TSIG's meaning of 16
	}
	if s, ok := dns.RcodeToString[int(e)]; ok {
		return "answered " + s
	}
	return fmt.Sprintf("answered with the unknown code %d", int(e))
}

func (e rcodeError) Is(target error) bool {
	if e == dns.RcodeServerFailure {
		return target == ErrServFail
	}
	return target == ErrRefused
}

// networkError sorts the errors of a socket. A deadline is the attempt's: the
// caller looks at its context first.
func networkError(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return ErrTimeout
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err // the rest of the text repeats the address
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// silent says that the server may just have been slow, so that a second round
// makes sense.
func silent(err error) bool {
	return errors.Is(err, ErrTimeout) || errors.Is(err, ErrUnreachable) || errors.Is(err, ErrTruncated)
}
