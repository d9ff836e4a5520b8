package milter

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-msgauth/authres"

	"github.com/postseal/postseal/milter/align"
	"github.com/postseal/postseal/milter/dkim"
)

// Report is the verdict on a message, with what it rests on. Its JSON form is
// stable.
type Report struct {
	// Verdict is the worst class of any finding: "pass", "weak", "fail".
	Verdict    string      `json:"verdict"`
	Action     Action      `json:"action"`
	Findings   []Finding   `json:"findings"`
	Signatures []Signature `json:"signatures"`
	From       From        `json:"from"`
	DMARC      DMARC       `json:"dmarc"`
	Size       int64       `json:"size"` // octets of header and body

	header string // Authentication-Results to add, with its own leading space
}

// Finding is one thing about the message, and what is done because of it.
type Finding struct {
	Name   string `json:"name"`
	Class  string `json:"class"` // "info", "weak", "fail"
	Detail string `json:"detail"`
	Code   string `json:"code"` // what receivers answer to such a message, "550 5.7.26", or ""
	Action Action `json:"action"`
}

// Signature is the result of one DKIM-Signature field.
type Signature struct {
	Domain    string `json:"domain"`
	Selector  string `json:"selector"`
	Algorithm string `json:"algorithm"`
	Bits      int    `json:"bits"`
	Result    string `json:"result"` // "pass", "fail", "temperror", "permerror"
	Aligned   bool   `json:"aligned"`
	Reason    string `json:"reason"`
}

// From is the author as the receivers see it.
type From struct {
	Address              string `json:"address"`
	Domain               string `json:"domain"`
	OrganizationalDomain string `json:"organizational_domain"`
}

// DMARC is the record that applies, and its effective policy.
type DMARC struct {
	Record string `json:"record"`
	Policy string `json:"policy"`
}

// judge makes the verdict.
func (x *Inspection) judge(ctx context.Context) *Report {
	m, results, found := x.evidence(ctx)
	all := align.Check(m)
	r := &Report{
		Verdict: verdicts[align.Worst(all)], Findings: []Finding{}, Signatures: []Signature{},
		Size: int64(x.header) + 2 + x.body.size,
	}
	for i, s := range m.Signatures {
		r.Signatures = append(r.Signatures, Signature{
			Domain: s.Domain, Selector: s.Selector, Algorithm: s.Algorithm, Bits: s.KeyBits,
			Result: results[i].Status.String(), Aligned: m.Alignment(s.Domain, m.DMARC.StrictDKIM) == align.IsAligned, Reason: s.Detail,
		})
	}
	r.From = author(m)
	if found.Found() {
		r.DMARC = DMARC{Record: found.Applied().Record.Text, Policy: m.DMARC.Policy}
	}
	x.decide(r, all)
	if x.state.AddHeader {
		r.header = x.authenticationResults(m, results)
	}
	if r.Action < Tempfail {
		x.noteSigned(m)
	}
	return r
}

var verdicts = map[align.Class]string{align.Info: "pass", align.Weak: "weak", align.Fail: "fail"}

// author shows the organizational domain by the tree walk where a record was
// found by it, else by the public suffix list: without records the walk has every
// name stand for itself.
func author(m *align.Message) From {
	f := From{Domain: m.Author.Domain}
	if len(m.Author.Addresses) > 0 {
		f.Address = m.Author.Addresses[0].String()
	}
	o := m.Organizations[f.Domain]
	if f.OrganizationalDomain = cmp.Or(o.PSL, o.Walk, f.Domain); m.DMARC.Found {
		f.OrganizationalDomain = cmp.Or(o.Walk, o.PSL, f.Domain)
	}
	return f
}

// decide sets what is done: the strongest action of any finding that may act.
func (x *Inspection) decide(r *Report, all []align.Finding) {
	actions := make([]Action, len(all))
	var acting uint64
	for i, f := range all {
		if actions[i] = x.wanted(f); actions[i] != Monitor {
			acting |= findingBit(f.Name)
		}
	}
	if !x.envelope.File {
		// Every message counts: the share is that of all messages of the domain.
		may, tripped := x.state.breaker.judge(x.author.Domain, acting)
		for _, t := range tripped {
			x.inspector.log.Error("milter breaker: a finding hits too many messages and is only monitored from now on; postseal reload resets it",
				"finding", t.finding, "from", x.author.Domain, "refused", t.refused, "of", t.messages)
		}
		for i, f := range all {
			if may&findingBit(f.Name) == 0 {
				actions[i] = Monitor
			}
		}
	}
	for i, f := range all {
		r.Findings = append(r.Findings, Finding{Name: f.Name, Class: f.Class.String(), Detail: f.Detail, Code: f.Code, Action: actions[i]})
		r.Action = max(r.Action, actions[i])
	}
}

// wanted is the configured action, unless the message is exempt from it.
func (x *Inspection) wanted(f align.Finding) Action {
	a := x.state.configured(f)
	switch {
	case x.state.Monitor && !x.envelope.File || x.nullSender():
		return Monitor // MLT-12: bounces are counted, and must not be refused
	case ofOthers[f.Name] && x.state.Senders.Forwarder(x.envelope.Client):
		return Monitor
	case f.Name == align.Unsigned && !x.envelope.File && x.inspector.seen != nil && !x.inspector.seen.Signed(x.author.Domain):
		return Monitor // the signer may come after us
	}
	return a
}

// ofOthers are findings for which mail of forwarders is never refused: they send
// on what others wrote.
var ofOthers = map[string]bool{align.Unaligned: true, align.AlignmentDiffers: true, align.FromForeign: true}

// nullSender: the message is a bounce or the like.
func (x *Inspection) nullSender() bool { return x.envelope.MailFrom == "" && !x.envelope.FromAuthor }

// noteSigned remembers a From domain whose mail is signed.
func (x *Inspection) noteSigned(m *align.Message) {
	senders := x.state.Senders
	if x.envelope.File || x.inspector.seen == nil || !senders.Ours(x.author.Domain) || senders.Forwarder(x.envelope.Client) {
		return // what others sign says nothing about our signer
	}
	for _, s := range m.Signatures {
		if s.Status == align.Pass && !s.Testing && m.Alignment(s.Domain, m.DMARC.StrictDKIM) == align.IsAligned {
			x.inspector.seen.NoteSigned(x.author.Domain)
			return
		}
	}
}

// decisive is the finding that the action is taken for: the first of the strongest.
func (r *Report) decisive() Finding {
	// MaxFunc returns the first of equals.
	return slices.MaxFunc(r.Findings, func(a, b Finding) int { return cmp.Compare(a.Action, b.Action) })
}

// enhanced are the subject and detail of the enhanced status code, RFC 3463 and
// RFC 7372, of a refusal because of a finding.
var enhanced = map[string]string{
	align.Unsigned: "7.20", align.SignatureInvalid: "7.20", align.KeyMissing: "7.20", align.KeyMismatch: "7.20",
	align.KeyRevoked: "7.20", align.KeyInvalid: "7.20",
	align.KeyWeak: "7.21", align.KeyTesting: "7.21", align.Ed25519Only: "7.21", align.SignatureExpires: "7.21",
	align.SignatureFragile: "7.21", align.BodyLengthLimit: "7.21", align.HeadersUnsigned: "7.21",
	align.Unaligned: "7.22", align.AlignmentDiffers: "7.22", align.SPFEgress: "7.23",
	align.DMARCMissing: "7.26", align.DMARCInvalid: "7.26",
	align.FromForeign: "7.1", align.SenderNotAllowed: "7.1",
}

// reply is the code and the text that a message is refused with.
func (r *Report) reply() (code, text string) {
	f := r.decisive()
	detail := enhanced[f.Name]
	if detail == "" {
		detail = "6.0" // RFC 3463 §3.7: something is wrong with the content
	}
	if code = "550 5." + detail; r.Action == Tempfail {
		code = "451 4." + detail
	}
	return code, r.reason()
}

// reason names the finding that counts, for a reply or the hold queue.
func (r *Report) reason() string {
	f := r.decisive()
	return fmt.Sprintf("postseal: %s: %s", f.Name, f.Detail)
}

// authenticationResults is the value of an RFC 8601 field, with the space after
// the colon (Postfix adds none when LEADSPC is negotiated).
func (x *Inspection) authenticationResults(m *align.Message, results []dkim.Result) string {
	var list []authres.Result
	for i := range results {
		list = append(list, &authres.DKIMResult{Value: authres.ResultValue(results[i].Status.String()), Domain: results[i].Domain})
	}
	if len(list) == 0 {
		list = append(list, &authres.DKIMResult{Value: authres.ResultNone})
	}
	var value authres.ResultValue = authres.ResultFail
	switch {
	case m.DMARC.Temp:
		value = authres.ResultTempError
	case !m.DMARC.Found:
		value = authres.ResultNone
	case slices.ContainsFunc(m.Signatures, func(s align.Signature) bool {
		return s.Status == align.Pass && m.Alignment(s.Domain, m.DMARC.StrictDKIM) == align.IsAligned
	}), slices.ContainsFunc(m.SPF, func(s align.SPF) bool {
		return s.Result == "pass" && m.Alignment(s.Domain, m.DMARC.StrictSPF) == align.IsAligned
	}):
		value = authres.ResultPass
	case slices.ContainsFunc(m.Signatures, func(s align.Signature) bool { return s.Status == align.TempError || s.Status == align.NotVerified }):
		value = authres.ResultTempError
	}
	list = append(list, &authres.DMARCResult{Value: value, From: m.Author.Domain})
	return " " + authres.Format(cmp.Or(x.envelope.Hostname, "postseal"), list)
}

// tell writes the message's one line and counts it.
func (i *Inspector) tell(x *Inspection, r *Report) {
	m := i.metrics
	m.messages.WithLabelValues(r.Verdict).Inc()
	m.actions.WithLabelValues(r.Action.String()).Inc()
	m.time.Observe(x.spent.Seconds())
	for _, f := range r.Findings {
		m.findings.WithLabelValues(f.Name, f.Action.String()).Inc()
	}
	if x.envelope.File {
		return
	}
	i.log.Info("message", "queue_id", x.QueueID, "from", r.From.Domain, "verdict", r.Verdict, "action", r.Action, "findings", r.findingList(), "detail", r.first(),
		"signatures", r.signatureList(), "destinations", x.destinations(), "client", x.who(), "size", r.Size, "took", x.spent.Round(time.Microsecond))
}

func (r *Report) findingList() string {
	var b strings.Builder
	for _, f := range r.Findings {
		separate(&b, ",")
		b.WriteString(f.Name)
		if f.Action != Monitor {
			b.WriteString(":" + f.Action.String())
		}
	}
	return b.String()
}

// first is what to mend first: align puts that in front.
func (r *Report) first() string {
	if len(r.Findings) == 0 {
		return ""
	}
	return r.Findings[0].Detail
}

func (r *Report) signatureList() string {
	var b strings.Builder
	for _, s := range r.Signatures {
		separate(&b, ", ")
		fmt.Fprintf(&b, "%s/%s %s %s", s.Domain, s.Selector, s.Algorithm, s.Result)
	}
	return b.String()
}

// destinations says what the recipients' domains stand at: "dane-only 3, secure 1".
func (x *Inspection) destinations() string {
	d := x.inspector.destinations
	if d == nil || len(x.domains) == 0 {
		return ""
	}
	standing := map[string]int{}
	for domain := range x.domains {
		standing[d.Standing(domain)]++
	}
	var b strings.Builder
	for _, level := range slices.Sorted(maps.Keys(standing)) {
		separate(&b, ", ")
		fmt.Fprintf(&b, "%s %d", level, standing[level])
	}
	return b.String()
}

func separate(b *strings.Builder, by string) {
	if b.Len() > 0 {
		b.WriteString(by)
	}
}
