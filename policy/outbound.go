package policy

import (
	"context"
	"errors"
	"sync"

	"github.com/postseal/postseal/policy/mtasts"
)

// outbound notices when every fetch fails for want of a connection: that is one
// alarm about port 443, not a thousand about policy hosts.
type outbound struct {
	mu      sync.Mutex
	domains map[string]struct{} // failed since the last success, up to blockedAfter
	alarmed bool
}

// blockedAfter so many different domains have failed in a row.
const blockedAfter = 5

// failed takes note of a failed fetch, and reports whether the alarm stands.
func (o *outbound) failed(e *Engine, domain string, err error) (blocked bool) {
	var f *mtasts.FetchError
	switch {
	case errors.As(err, &f) && (f.StatusCode != 0 || f.Kind != mtasts.FetchFailed):
		o.succeeded(e) // something answered on port 443
		return false
	case errors.Is(err, mtasts.ErrNoAddress), errors.Is(err, mtasts.ErrUnanswered), errors.Is(err, mtasts.ErrRefused),
		errors.Is(err, mtasts.ErrCannotHavePolicy), errors.Is(err, mtasts.ErrBusy), errors.Is(err, context.Canceled):
		return false // no connection was tried
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.alarmed {
		return true
	}
	if o.domains == nil {
		o.domains = map[string]struct{}{}
	}
	if o.domains[domain] = struct{}{}; len(o.domains) < blockedAfter {
		return false
	}
	o.alarmed = true
	e.metrics.outboundBlocked.Set(1)
	e.log.Error("all policy fetches fail: is port 443 outward blocked?", "domains", len(o.domains), "last", domain, "error", err)
	return true
}

func (o *outbound) succeeded(e *Engine) {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.domains)
	if o.alarmed {
		o.alarmed = false
		e.metrics.outboundBlocked.Set(0)
		e.log.Info("policies can be fetched again")
	}
}
