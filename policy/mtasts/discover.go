package mtasts

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postseal/postseal/internal/resolver"
)

// ErrUnanswered: nobody answered a DNS question (SERVFAIL, timeout, REFUSED,
// bogus). What is remembered stays in force; ask again soon.
var ErrUnanswered = errors.New("no DNS answer")

// TXTResolver is what Discover asks. The records are joined and unescaped, and
// CNAMEs followed (RFC 8461 §3.1), by the resolver.
type TXTResolver interface {
	TXT(ctx context.Context, name string) (resolver.Answer[string], error)
}

// Discovery is the answer to the question whether a domain announces a policy.
type Discovery struct {
	// Record is set when Found.
	Record Record
	Found  bool
	// TTL is how long the DNS lets this be remembered, for a denial too; zero
	// when nobody was asked or the denial named no time.
	TTL   time.Duration
	Notes []Note
	// Err says why there are TXT records but none usable: it wraps
	// ErrManyRecords or ErrInvalidRecord, or ErrCannotHavePolicy when no
	// question was asked. It is nil when Found, and when there is simply no
	// record.
	Err error
}

// Discover looks up the MTA-STS record of a policy domain, RFC 8461 §3.1. The
// domain may have U-labels and a trailing dot. There is one question, and its
// deadline is that of the context.
//
// The error wraps ErrUnanswered and the resolver's error: nobody answered, so
// nothing is known. Everything else, absence included, is an answer and in the
// Discovery.
func Discover(ctx context.Context, r TXTResolver, domain string) (Discovery, error) {
	name, err := policyDomain(domain)
	if err != nil {
		return Discovery{Err: err}, nil
	}
	answer, err := r.TXT(ctx, recordPrefix+name)
	if err != nil {
		return Discovery{}, fmt.Errorf("%w: TXT %s%s: %w", ErrUnanswered, recordPrefix, name, err)
	}
	d := Discovery{TTL: answer.TTL}
	d.Record, d.Notes, d.Err = ParseRecords(answer.Records)
	if errors.Is(d.Err, ErrNoRecord) {
		d.Err = nil
	} else {
		d.Found = d.Err == nil
	}
	return d, nil
}
