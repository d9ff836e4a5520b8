package mtasts

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/postseal/postseal/internal/resolver/resolvertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

func TestFetch(t *testing.T) {
	w := newWorld(t, nil, nil)
	before := time.Now()
	got := w.succeeds(t)
	if string(got.Body) != good || got.Host != "mta-sts.ex.test" || got.Notes != nil ||
		got.Address != netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), w.fetcher.port) ||
		got.At.Before(before) || got.At.After(time.Now()) {
		t.Errorf("%+v", got)
	}
}

func TestSTS030_Request(t *testing.T) {
	for _, domain := range []string{"bücher.test", "XN--bcher-kva.TEST", "xn--bcher-kva.test."} {
		w := newWorld(t, nil, hostCertificate(t, "mta-sts.xn--bcher-kva.test"))
		w.dns.Set("mta-sts.xn--bcher-kva.test 300 A 127.0.0.1\nnodata mta-sts.xn--bcher-kva.test 60 AAAA")
		if _, err := w.fetcher.Fetch(t.Context(), domain); err != nil {
			t.Fatal(err)
		}
		seen := w.seen()
		if len(seen) != 1 {
			t.Fatalf("%d requests", len(seen))
		}
		r := seen[0]
		if r.Method != "GET" || r.RequestURI != "/.well-known/mta-sts.txt" || r.Proto != "HTTP/1.1" ||
			r.Host != "mta-sts.xn--bcher-kva.test" || r.TLS.ServerName != "mta-sts.xn--bcher-kva.test" {
			t.Errorf("%s %s %s, host %s, SNI %s", r.Method, r.RequestURI, r.Proto, r.Host, r.TLS.ServerName)
		}
		// Cookies, Authorization, Referer and the like would stand out here.
		for name := range r.Header {
			switch name {
			case "User-Agent", "Accept", "Accept-Encoding", "Connection":
			default:
				t.Errorf("header %s: %s", name, r.Header.Get(name))
			}
		}
	}
}

func TestSTS045_UserAgent(t *testing.T) {
	w := newWorld(t, nil, nil)
	w.succeeds(t)
	w.fetcher.UserAgent = "custom/1"
	w.succeeds(t)
	if got := w.seen()[0].UserAgent(); !strings.HasPrefix(got, "postseal ") {
		t.Errorf("User-Agent %q", got)
	}
	if got := w.seen()[1].UserAgent(); got != "custom/1" {
		t.Errorf("User-Agent %q", got)
	}
}

func TestSTS031_NoRedirects(t *testing.T) {
	for _, code := range []int{301, 302, 303, 307, 308} {
		for _, to := range []string{"/.well-known/mta-sts.txt", "https://www.ex.test/policy", "http://mta-sts.ex.test/.well-known/mta-sts.txt"} {
			w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("Location", to)
				rw.Header().Set("Content-Type", "text/plain")
				rw.WriteHeader(code)
				io.WriteString(rw, good)
			}, nil)
			_, failed := w.fails(t, FetchFailed)
			if failed.StatusCode != code || !strings.Contains(failed.Hint, to) {
				t.Errorf("%+v", failed)
			}
			if n := len(w.seen()); n != 1 {
				t.Errorf("%d to %s: %d requests", code, to, n)
			}
		}
	}
}

func TestSTS031_Only200(t *testing.T) {
	for _, code := range []int{201, 203, 204, 206, 304, 400, 403, 404, 410, 429, 500, 503} {
		w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Type", "text/plain")
			rw.WriteHeader(code)
			if code != 204 && code != 304 {
				io.WriteString(rw, good)
			}
		}, nil)
		if _, failed := w.fails(t, FetchFailed); failed.StatusCode != code {
			t.Errorf("%+v", failed)
		}
	}
}

func TestSTS032_NoHTTPCaching(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("ETag", `"1"`)
		rw.Header().Set("Last-Modified", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
		rw.Header().Set("Cache-Control", "max-age=86400")
		rw.Header().Set("Set-Cookie", "a=b")
		serve("text/plain", good)(rw, r)
	}, nil)
	w.succeeds(t)
	w.succeeds(t)
	if n := len(w.seen()); n != 2 {
		t.Fatalf("%d requests", n)
	}
	for _, name := range []string{"If-None-Match", "If-Modified-Since", "Cookie"} {
		if v := w.seen()[1].Header.Get(name); v != "" {
			t.Errorf("%s: %s", name, v)
		}
	}
}

// The port is no proxy: a fetch by way of the environment's would fail.
func TestSTS032_NoProxyFromTheEnvironment(t *testing.T) {
	w := newWorld(t, nil, nil)
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "ALL_PROXY"} {
		t.Setenv(name, "http://127.0.0.1:1")
	}
	w.succeeds(t)
}

func TestSTS037_MediaType(t *testing.T) {
	for kind, want := range map[string]bool{
		"text/plain":                             true,
		"text/plain; charset=utf-8":              true,
		"TEXT/PLAIN;charset=iso-8859-1; foo=bar": true,
		"text/plain; charset=":                   true,
		"text/plain ; x":                         true,
		"text/html":                              false,
		"text/html; x=text/plain":                false,
		"application/octet-stream":               false,
		"text/plainer":                           false,
		"":                                       false,
	} {
		w := newWorld(t, serve(kind, good), nil)
		if want {
			w.succeeds(t)
			continue
		}
		_, failed := w.fails(t, FetchFailed)
		if !strings.Contains(failed.Error(), "media type") || failed.StatusCode != 200 {
			t.Errorf("%q: %v", kind, failed)
		}
		w.fetcher.LenientMediaType = true
		w.succeeds(t)
	}
}

func TestSTS038_Size(t *testing.T) {
	largest := good + "x: " + strings.Repeat("a", MaxPolicySize-len(good)-3)
	w := newWorld(t, serve("text/plain", largest), nil)
	if got := w.succeeds(t); len(got.Body) != 65536 {
		t.Errorf("%d bytes", len(got.Body))
	}
	for name, handler := range map[string]http.HandlerFunc{
		"one more": serve("text/plain", largest+"a"),
		"chunked without end": func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Type", "text/plain")
			for r.Context().Err() == nil {
				if _, err := io.WriteString(rw, good); err != nil {
					return
				}
			}
		},
	} {
		w := newWorld(t, handler, nil)
		if _, failed := w.fails(t, FetchFailed); !strings.Contains(failed.Error(), "larger than 65536 bytes") {
			t.Errorf("%s: %v", name, failed)
		}
	}
}

func TestSTS038_CutBody(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Length", fmt.Sprint(len(good)+1))
		serve("text/plain", good)(rw, r)
	}, nil)
	if _, failed := w.fails(t, FetchFailed); !errors.Is(failed, io.ErrUnexpectedEOF) {
		t.Error(failed)
	}
}

func TestSTS038_HugeHeader(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("X-Filler", strings.Repeat("a", 1<<20))
		serve("text/plain", good)(rw, r)
	}, nil)
	w.fails(t, FetchFailed)
}

func TestSTS038_ContentEncoding(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	io.WriteString(z, good+strings.Repeat("x: "+strings.Repeat("a", 100)+"\n", 100_000))
	z.Close()
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Encoding", "gzip")
		serve("text/plain", bomb.String())(rw, r)
	}, nil)
	if _, failed := w.fails(t, FetchFailed); !strings.Contains(failed.Error(), `content coding "gzip"`) {
		t.Error(failed)
	}
	if got := w.seen()[0].Header.Get("Accept-Encoding"); got != "identity" {
		t.Errorf("Accept-Encoding %q", got)
	}
	newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Encoding", "Identity")
		serve("text/plain", good)(rw, r)
	}, nil).succeeds(t)
}

func TestSTS038_Slowloris(t *testing.T) {
	drip := func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/plain")
		for i := 0; r.Context().Err() == nil; i++ {
			io.WriteString(rw, good[i%len(good):][:1])
			rw.(http.Flusher).Flush()
			time.Sleep(20 * time.Millisecond)
		}
	}
	silent := func(rw http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for name, handler := range map[string]http.HandlerFunc{"body": drip, "header": silent} {
		w := newWorld(t, handler, nil)
		w.fetcher.Timeout = 300 * time.Millisecond
		start := time.Now()
		_, failed := w.fails(t, FetchFailed)
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s: %v", name, took)
		}
		if !errors.Is(failed, context.DeadlineExceeded) || !strings.Contains(failed.Error(), "gave up after") {
			t.Errorf("%s: %v", name, failed)
		}
	}
}

func TestSTS038_StalledHandshake(t *testing.T) {
	w := newWorld(t, nil, nil)
	w.fetcher.port = portOf(listen(t, "127.0.0.1:0", swallow))
	w.fetcher.Timeout = 200 * time.Millisecond
	if _, failed := w.fails(t, FetchFailed); !errors.Is(failed, context.DeadlineExceeded) {
		t.Error(failed)
	}
}

// A response that ends because we close the connection came too late, however
// complete it looks.
func TestSTS038_TooLate(t *testing.T) {
	late := func(after func(context.Context, io.Writer)) roundTripper {
		return func(r *http.Request) (*http.Response, error) {
			body, w := io.Pipe()
			go func() { after(r.Context(), w); w.Close() }()
			return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"text/plain"}}, Body: body}, nil
		}
	}
	for name, transport := range map[string]http.RoundTripper{
		"header": roundTripper(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return late(func(_ context.Context, w io.Writer) { io.WriteString(w, good) })(r)
		}),
		"body": late(func(ctx context.Context, w io.Writer) { io.WriteString(w, good); <-ctx.Done() }),
	} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			_, err := (&Fetcher{Transport: transport}).Fetch(t.Context(), "ex.test")
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Minute {
				t.Errorf("%s: %v after %v", name, err, time.Since(start))
			}
		})
	}
}

func TestFetchEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() }, nil)
	_, err := w.fetcher.Fetch(ctx, "ex.test")
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestRPT003_PolicyInvalid(t *testing.T) {
	w := newWorld(t, serve("text/plain", "<html>soft 404</html>"), nil)
	got, failed := w.fails(t, PolicyInvalid)
	if !errors.Is(failed, ErrInvalidPolicy) || !strings.Contains(failed.Hint, "web page") || len(got.Body) == 0 || len(got.Notes) == 0 {
		t.Errorf("%+v, %v", got, failed)
	}
}

func TestRPT003_ResultTypes(t *testing.T) {
	for f, want := range map[Failure]string{
		FetchFailed: "sts-policy-fetch-error", WebPKIInvalid: "sts-webpki-invalid", PolicyInvalid: "sts-policy-invalid", 9: "unknown",
	} {
		if f.String() != want {
			t.Errorf("%d: %s", f, f)
		}
	}
}

// What an administrator gets to read must name the cause and the way out.
func TestFetchErrorText(t *testing.T) {
	respond := func(code int, header ...string) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(header); i += 2 {
				rw.Header().Set(header[i], header[i+1])
			}
			rw.WriteHeader(code)
		}
	}
	for _, c := range []struct {
		handler http.HandlerFunc
		want    string
	}{
		{respond(301, "Location", "https://www.ex.test/"), `status 301 Moved Permanently (a redirect to "https://www.ex.test/", which senders must not follow: the policy has to be served at this very address)`},
		{respond(403), `status 403 Forbidden (a CDN or firewall in front of the policy host may be refusing automatic clients: exempt this path from bot protection)`},
		{respond(404), `status 404 Not Found (the host is there, but has no policy at this path)`},
		{respond(500), `status 500 Internal Server Error`},
		{respond(200, "Content-Type", "text/html; charset=utf-8"), `media type "text/html; charset=utf-8" is not text/plain (the host answers with a web page instead of a policy)`},
		{serve("", good), `media type "" is not text/plain (the policy has to be served with Content-Type: text/plain)`},
		{serve("text/plain", "version: STSv1\nmode: Enforce"), `invalid MTA-STS policy: line 2: mode "Enforce" is none of enforce, testing and none`},
	} {
		w := newWorld(t, c.handler, nil)
		_, err := w.fetcher.Fetch(t.Context(), "ex.test")
		if want := "https://mta-sts.ex.test/.well-known/mta-sts.txt: " + c.want; err == nil || err.Error() != want {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
}

func TestFetchWithoutPolicyHost(t *testing.T) {
	got, err := (&Fetcher{}).Fetch(t.Context(), "localhost")
	var failed *FetchError
	if !errors.As(err, &failed) || failed.Kind != FetchFailed || !errors.Is(err, ErrCannotHavePolicy) || got.Host != "" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestFetchLogsOneLine(t *testing.T) {
	var out bytes.Buffer
	w := newWorld(t, nil, nil)
	w.fetcher.Logger = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	w.succeeds(t)
	w.dns.Set("nx mta-sts.ex.test 60 A\nnx mta-sts.ex.test 60 AAAA")
	w.fails(t, FetchFailed)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "mode=enforce") || !strings.Contains(lines[1], "result=sts-policy-fetch-error") {
		t.Errorf("%s", out.String())
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Tests of other packages stand in for policy hosts here, without DNS.
func TestTransportSeam(t *testing.T) {
	f := Fetcher{
		Resolver: resolvertest.New(""),
		Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.URL.String() != "https://mta-sts.ex.test/.well-known/mta-sts.txt" {
				return nil, errors.New("unexpected request for " + r.URL.String())
			}
			return &http.Response{
				StatusCode: 200, Header: http.Header{"Content-Type": {"text/plain"}}, Body: io.NopCloser(strings.NewReader(good)),
			}, nil
		}),
	}
	got, err := f.Fetch(t.Context(), "ex.test")
	if err != nil || got.Policy.Mode != ModeEnforce || got.Address.IsValid() {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := f.Fetch(t.Context(), "other.test"); err == nil {
		t.Error("no error")
	}
}
