package policy

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/postseal/postseal/cache"
	"github.com/postseal/postseal/policy/mtasts"
)

// Kinds of records in the store.
const (
	kindPolicy cache.Kind = "policy" // an MTA-STS policy and its book-keeping, by domain
	kindClass  cache.Kind = "class"  // the DANE standing last seen of such a domain
	kindMX     cache.Kind = "mx"     // the MX set last seen of a domain, for mx: rules
	kindMXRule cache.Kind = "mxrule" // when an mx: pattern last matched a destination
	kindState  cache.Kind = "state"  // what is kept of first-run safety
)

// Lifetimes around a policy.
const (
	// minEnforce is the least lifetime of an enforce policy: with max_age 0 one
	// fetch in five minutes suffices (CCH-06, stricter than RFC 8461).
	minEnforce = 5 * time.Minute
	// refreshEvery is how often a policy is fetched anew. RFC 8461 §3.3
	// suggests daily.
	refreshEvery = 24 * time.Hour
	// retryFirst and retryMost bound the pause after a failed fetch of one id.
	// RFC 8461 §3.3: no sooner than five minutes.
	retryFirst = 5 * time.Minute
	// retryBusy is the pause when a policy host's address was taken by other
	// fetches of ours, so that nothing was asked.
	retryBusy = 5 * time.Second
	retryMost = time.Hour
	// refreshUnasked: a policy nobody asked for in so long is not refreshed any
	// more, only kept until its max_age (CCH-05).
	refreshUnasked = 14 * 24 * time.Hour
)

// policyState is an MTA-STS policy that is held, or the failure to get one.
// Guarded by the lock of its domain.
type policyState struct {
	have   bool
	policy mtasts.Policy
	body   []byte
	id     string // the record's id under which it was fetched

	fetched   time.Time // last successful fetch; max_age counts from it
	noted     time.Time // the same as it was noted, where that lies ahead of the clock
	checked   time.Time // last look at the record
	attempted time.Time // last fetch, successful or not
	failedID  string    // the id of which the last fetch failed
	failures  int       // fetches failed in a row
	err       string    // the last failure, empty after a success
	refreshAt time.Time
	notes     []string // what the parser forgave

	kept bool      // counted for its organization and in the store
	last *LastSeen // DANE standing, as last seen complete
	// expedited is when a mismatch had the policy fetched anew (CMB-12).
	expedited time.Time
}

// expires is the end of the policy's lifetime: max_age from the last successful
// fetch, not from a look at the record (STS-090). RFC 8461 §3.2.
func (p *policyState) expires() time.Time {
	age := p.policy.MaxAge
	if p.policy.Mode == mtasts.ModeEnforce {
		age = max(age, minEnforce)
	}
	return p.fetched.Add(age)
}

// valid: a policy is held and unexpired.
func (p *policyState) valid(now time.Time) bool {
	return p != nil && p.have && now.Before(p.expires())
}

// enforced: a valid policy of mode enforce is held.
func (p *policyState) enforced(now time.Time) bool {
	return p.valid(now) && p.policy.Mode == mtasts.ModeEnforce
}

// mayFetch obeys RFC 8461 §3.3: after a failed fetch none for the same id for
// five minutes, longer the more failed; another id may be tried at once.
func (p *policyState) mayFetch(id string, now time.Time) bool {
	if p == nil || p.failures == 0 || id != p.failedID {
		return true
	}
	return !now.Before(p.attempted.Add(p.pause()))
}

func (p *policyState) pause() time.Duration {
	return min(retryFirst<<min(p.failures-1, 8), retryMost)
}

// policyRecord is a policyState in the store. Times are in seconds, so that
// the text stays readable; CCH-01.
type policyRecord struct {
	Version     int    `json:"v"`
	Body        []byte `json:"body,omitempty"`
	ID          string `json:"id,omitempty"`
	Fetched     int64  `json:"fetched_at,omitempty"`
	MaxAge      int64  `json:"max_age"`
	Checked     int64  `json:"txt_checked_at,omitempty"`
	Attempted   int64  `json:"last_attempt_at,omitempty"`
	LastError   string `json:"last_error,omitempty"`
	FailedID    string `json:"failed_id,omitempty"`
	Failures    int    `json:"refresh_failures,omitempty"`
	LastQueried int64  `json:"last_queried_at,omitempty"`
}

const policyRecordVersion = 1

// record writes the state for the store; asked is when the domain was last asked for.
func (p *policyState) record(domain string, asked time.Time) (cache.Record, error) {
	// A clock that is wrong now must not spoil what is on disk: it may be put right.
	fetched := later(p.fetched, p.noted)
	value, err := json.Marshal(policyRecord{
		Version: policyRecordVersion, Body: p.body, ID: p.id,
		Fetched: seconds(fetched), MaxAge: int64(p.policy.MaxAge / time.Second), Checked: seconds(p.checked),
		Attempted: seconds(p.attempted), LastError: p.err, FailedID: p.failedID, Failures: p.failures,
		LastQueried: seconds(asked),
	})
	return cache.Record{Kind: kindPolicy, Key: domain, Value: value, Expires: p.expires().Add(fetched.Sub(p.fetched))}, err
}

// readPolicyRecord is the inverse of record. A fetch in the future, after the
// clock was set back, counts as one of now: it never lengthens the lifetime (STS-097).
func readPolicyRecord(r cache.Record, now time.Time) (*policyState, time.Time, error) {
	var v policyRecord
	if err := json.Unmarshal(r.Value, &v); err != nil {
		return nil, time.Time{}, fmt.Errorf("policy of %s in the store: %w", r.Key, err)
	}
	if v.Version != policyRecordVersion {
		return nil, time.Time{}, fmt.Errorf("policy of %s in the store: format %d, want %d", r.Key, v.Version, policyRecordVersion)
	}
	policy, notes, err := mtasts.ParsePolicy(v.Body)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("policy of %s in the store: %w", r.Key, err)
	}
	p := &policyState{
		have: true, policy: policy, body: v.Body, id: v.ID, notes: noteTexts(notes),
		fetched: fromSeconds(v.Fetched), checked: clampPast(fromSeconds(v.Checked), now),
		attempted: clampPast(fromSeconds(v.Attempted), now), err: v.LastError, failedID: v.FailedID, failures: v.Failures,
		kept: true,
	}
	p.clamp(now)
	return p, clampPast(fromSeconds(v.LastQueried), now), nil
}

func clampPast(t, now time.Time) time.Time {
	if t.After(now) {
		return now
	}
	return t
}

func seconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func fromSeconds(s int64) time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(s, 0)
}

func noteTexts(notes []mtasts.Note) []string {
	var texts []string
	for _, n := range notes {
		texts = append(texts, string(n))
	}
	return texts
}
