package mtasts

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/postseal/postseal/internal/resolver"
)

// Limits of a fetch. The body's is MaxPolicySize.
const (
	defaultTimeout = time.Minute            // RFC 8461 §3.3 suggests one minute
	attemptDelay   = 250 * time.Millisecond // RFC 8305 §5, Connection Attempt Delay
	maxPerFamily   = 4                      // addresses tried of those found
	maxHeader      = 64 << 10               // bytes; servers allow themselves 8 to 32 kB
	httpsPort      = 443                    // RFC 8461 §3.2: an https URI without a port
)

const (
	policyPath = "/.well-known/mta-sts.txt" // RFC 8461 §3.2
	// Plain about who asks: some networks in front of policy hosts refuse
	// agents that they do not know, and more of them empty ones.
	defaultUserAgent = "postseal (MTA-STS policy fetch; +https://github.com/postseal/postseal)"
)

// AddressResolver is what Fetch asks for the addresses of the policy host, so
// that they come from the same DNS as everything else. Both must return soon
// after the context ends: Fetch waits for them.
type AddressResolver interface {
	A(ctx context.Context, name string) (resolver.Answer[netip.Addr], error)
	AAAA(ctx context.Context, name string) (resolver.Answer[netip.Addr], error)
}

// Fetcher gets policies from policy hosts. All fields but Resolver have useful
// zero values. Any number of fetches may run at once, and how many should is the
// caller's business (RFC 8461 §3.3), except that one address never sees more than
// four connections of a Fetcher: the next fetch takes another address of its
// host, or waits for at most 3 s. It must not be copied after its first use.
type Fetcher struct {
	// Resolver finds the addresses. Required, though not asked with a Proxy or
	// a Transport.
	Resolver AddressResolver
	// RootCAs are the trusted authorities; nil means the system's.
	RootCAs *x509.CertPool
	// AllowNetworks may be connected to although they are not public. Without
	// them loopback, private, link-local, own and other special addresses are
	// refused.
	AllowNetworks []netip.Prefix
	// Proxy takes all fetches: http, https or socks5. It resolves the policy
	// host itself, so neither Resolver nor AllowNetworks have a say. There is
	// none from the environment. The policy host's certificate is checked here
	// all the same.
	Proxy *url.URL
	// Timeout bounds a whole fetch, from the first DNS question to the last
	// byte; zero means 60 s.
	Timeout time.Duration
	// UserAgent replaces the default, which names postseal.
	UserAgent string
	// LenientMediaType takes policies whatever their Content-Type. Strict is
	// RFC 8461 §3.2's SHOULD: it keeps out what users may upload to a host.
	LenientMediaType bool
	// Logger gets one line per fetch at level debug; nil means none.
	Logger *slog.Logger
	// Transport replaces connections, TLS and proxy altogether; for tests. It
	// must not follow redirects.
	Transport http.RoundTripper

	places places
	port   uint16 // tests; zero means httpsPort
}

// Fetched is a policy and where it came from. Beside an error it holds what is
// known: Host, Address once there was a connection, and Body and Notes if the
// Kind of the error is PolicyInvalid.
type Fetched struct {
	Body   []byte // as served, at most MaxPolicySize
	Policy Policy
	Notes  []Note
	Host   string // the policy host, mta-sts.<domain>
	// Address is where the policy came from; not valid with a Proxy or a
	// Transport.
	Address netip.AddrPort
	At      time.Time // when the last byte was there
}

// Fetch gets and reads the policy of a domain, RFC 8461 §3.3: one GET of
// https://mta-sts.<domain>/.well-known/mta-sts.txt, whose certificate must be
// valid for that host, whatever aliases the DNS has for it. The domain may have
// U-labels and a trailing dot.
//
// It returns after Timeout at the latest, and leaves no connection behind. The
// error is a *FetchError. It wraps the context's error when that ended,
// ErrUnanswered when the DNS did not answer, ErrNoAddress when it has no address
// for the host, ErrRefused when an address may not be connected to and no other
// one served, ErrBusy likewise when other fetches keep the address, ErrCannotHavePolicy when nobody was asked, ErrInvalidPolicy when
// the policy is not valid.
func (f *Fetcher) Fetch(ctx context.Context, domain string) (got Fetched, err error) {
	start := time.Now()
	status := 0
	defer func() { f.log(ctx, start, domain, &got, err) }()
	fail := func(kind Failure, hint string, err error) (Fetched, error) {
		return got, &FetchError{Kind: kind, Host: got.Host, StatusCode: status, Address: got.Address, Hint: hint, Err: err}
	}
	name, err := policyDomain(domain)
	if err != nil {
		return fail(FetchFailed, "", err)
	}
	got.Host = hostPrefix + name
	timeout := f.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	way, err := f.connect(ctx, got.Host)
	got.Address = way.address
	if err != nil {
		kind, hint := f.judge(err, got.Host, way.canonical)
		return fail(kind, hint, timed(ctx, start, err))
	}
	defer way.close()
	resp, err := way.get(f.request(ctx, got.Host))
	if err != nil {
		kind, hint := f.judge(err, got.Host, way.canonical)
		return fail(kind, hint, timed(ctx, start, fmt.Errorf("no response: %w", err)))
	}
	defer resp.Body.Close()
	status = resp.StatusCode
	if hint, err := f.checkHeader(resp); err != nil {
		return fail(FetchFailed, hint, err)
	}
	body, err := readBody(ctx, resp)
	if err != nil {
		return fail(FetchFailed, "", timed(ctx, start, err))
	}
	got.Body, got.At = body, time.Now()
	got.Policy, got.Notes, err = ParsePolicy(body)
	if err != nil {
		return fail(PolicyInvalid, bodyHint(body), err)
	}
	return got, nil
}

// request is the whole of what a policy host gets to see.
func (f *Fetcher) request(ctx context.Context, host string) *http.Request {
	agent := f.UserAgent
	if agent == "" {
		agent = defaultUserAgent
	}
	// RFC 8461 §3.3: no HTTP caching, so nothing conditional; no credentials.
	return (&http.Request{
		Method: http.MethodGet,
		URL:    &url.URL{Scheme: "https", Host: host, Path: policyPath},
		Host:   host,
		Proto:  "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{
			"User-Agent": {agent},
			"Accept":     {"text/plain, */*;q=0.1"},
			// Without it a server may compress as it likes, RFC 9110 §12.5.3.
			"Accept-Encoding": {"identity"},
		},
	}).WithContext(ctx)
}

// checkHeader refuses a response that cannot carry a policy.
func (f *Fetcher) checkHeader(resp *http.Response) (hint string, err error) {
	// RFC 8461 §3.3: only 200 counts, and redirects are not followed.
	if resp.StatusCode != http.StatusOK {
		return statusHint(resp), fmt.Errorf("status %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	// The limit is on what is parsed; nothing is decoded.
	for _, coding := range resp.Header.Values("Content-Encoding") {
		if coding != "" && !strings.EqualFold(coding, "identity") {
			return "the server must not compress what was asked for uncompressed",
				fmt.Errorf("content coding %s", quote(coding))
		}
	}
	kind := resp.Header.Get("Content-Type")
	// RFC 8461 §3.2: text/plain, and parameters are ignored, even broken ones.
	media, _, _ := strings.Cut(kind, ";")
	if !f.LenientMediaType && !strings.EqualFold(strings.Trim(media, wsp), "text/plain") {
		return mediaHint(media), fmt.Errorf("media type %s is not text/plain", quote(kind))
	}
	return "", nil
}

func readBody(ctx context.Context, resp *http.Response) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxPolicySize+1))
	if err == nil {
		err = ctx.Err() // see route.get
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the policy: %w", err)
	case len(body) > MaxPolicySize:
		return nil, fmt.Errorf("the policy is larger than %d bytes", MaxPolicySize)
	}
	return body, nil
}

// timed says how long was waited when the time was up: the error itself tells
// only which step it hit.
func timed(ctx context.Context, start time.Time, err error) error {
	waited := time.Since(start).Round(time.Millisecond)
	switch {
	case !errors.Is(ctx.Err(), context.DeadlineExceeded):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("gave up after %v: %w", waited, err)
	}
	return fmt.Errorf("gave up after %v: %w: %w", waited, ctx.Err(), err)
}

func (f *Fetcher) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, // RFC 8461 §7.2, RFC 8996
		RootCAs:    f.RootCAs,
		NextProtos: []string{"http/1.1"},
	}
}

func (f *Fetcher) log(ctx context.Context, start time.Time, domain string, got *Fetched, err error) {
	if f.Logger == nil {
		return
	}
	args := []any{"domain", domain, "host", got.Host, "duration", time.Since(start), "bytes", len(got.Body), "notes", len(got.Notes)}
	if got.Address.IsValid() {
		args = append(args, "address", got.Address.String())
	}
	var failed *FetchError
	if errors.As(err, &failed) {
		args = append(args, "result", failed.Kind.String(), "error", err)
	} else {
		args = append(args, "mode", got.Policy.Mode.String(), "max_age", got.Policy.MaxAge)
	}
	f.Logger.DebugContext(ctx, "mta-sts policy fetch", args...)
}
