package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/postseal/postseal/policy"
)

// The control socket speaks HTTP with JSON bodies; whoever may open the socket
// (mode 0600) may do everything. Limits of one request:
const (
	controlTimeout = 100 * time.Second // explain --live fetches policies
	probeTimeout   = 6 * time.Minute   // explain --probe waits for mail hosts, up to 4 min
	maxImport      = 512 << 20
)

// control is the daemon's side of the control socket.
type control struct {
	daemon *daemon
}

func (c *control) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /explain", c.explain)
	mux.HandleFunc("POST /reload", c.reload)
	mux.HandleFunc("GET /ready", c.ready)
	mux.HandleFunc("GET /policies", c.policies)
	mux.HandleFunc("GET /static-map", c.staticMap)
	mux.HandleFunc("GET /report/enforced", c.reportEnforced)
	mux.HandleFunc("POST /policies", c.importPolicies)
	mux.HandleFunc("GET /policy", c.show)
	mux.HandleFunc("POST /policy/refresh", c.refresh)
	mux.HandleFunc("DELETE /policy", c.flush)
	return mux
}

// failure is the body of every answer that is not 200.
type failure struct {
	Error string `json:"error"`
}

func answerJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the peer has gone: nobody to tell
}

// answer writes v, or the error with the status that fits it.
func answer(w http.ResponseWriter, v any, err error) {
	switch {
	case err == nil:
		answerJSON(w, http.StatusOK, v)
	case errors.Is(err, policy.ErrNotHeld):
		answerJSON(w, http.StatusNotFound, failure{err.Error()})
	case errors.Is(err, policy.ErrNoDestination):
		answerJSON(w, http.StatusBadRequest, failure{err.Error()})
	default:
		answerJSON(w, http.StatusInternalServerError, failure{err.Error()})
	}
}

func (c *control) explain(w http.ResponseWriter, r *http.Request) {
	ask := inquiry{key: r.FormValue("key")}
	ask.live, _ = strconv.ParseBool(r.FormValue("live"))
	ask.probe, _ = strconv.ParseBool(r.FormValue("probe"))
	x, err := c.daemon.explain(r.Context(), ask)
	answer(w, x, err)
}

func (c *control) reload(w http.ResponseWriter, _ *http.Request) {
	if err := c.daemon.reload(); err != nil {
		answerJSON(w, http.StatusUnprocessableEntity, failure{err.Error()})
		return
	}
	answerJSON(w, http.StatusOK, struct{}{})
}

func (c *control) ready(w http.ResponseWriter, _ *http.Request) {
	r := c.daemon.readiness()
	status := http.StatusOK
	if !r.Ready {
		status = http.StatusServiceUnavailable
	}
	answerJSON(w, status, r)
}

func (c *control) policies(w http.ResponseWriter, _ *http.Request) {
	answer(w, orEmpty(c.daemon.engine.Held()), nil)
}

func (c *control) staticMap(w http.ResponseWriter, _ *http.Request) {
	answer(w, newStaticMap(c.daemon.engine.Held(), c.daemon.engine.KnownMX(), c.daemon.config()), nil)
}

func (c *control) importPolicies(w http.ResponseWriter, r *http.Request) {
	var all []policy.HeldPolicy
	if err := json.NewDecoder(io.LimitReader(r.Body, maxImport)).Decode(&all); err != nil {
		answerJSON(w, http.StatusBadRequest, failure{err.Error()})
		return
	}
	n, err := c.daemon.engine.Import(r.Context(), all)
	if err != nil {
		answerJSON(w, http.StatusBadRequest, failure{err.Error()})
		return
	}
	answer(w, map[string]int{"imported": n}, nil)
}

func (c *control) show(w http.ResponseWriter, r *http.Request) {
	h, err := c.daemon.engine.Show(r.FormValue("key"))
	answer(w, h, err)
}

func (c *control) refresh(w http.ResponseWriter, r *http.Request) {
	h, err := c.daemon.engine.Refresh(r.Context(), r.FormValue("key"))
	answer(w, h, err)
}

func (c *control) flush(w http.ResponseWriter, r *http.Request) {
	err := c.daemon.engine.Flush(r.Context(), r.FormValue("key"))
	answer(w, struct{}{}, err)
}

// orEmpty makes an empty list of none, so that JSON says [] and not null.
func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// controlClient is the command line's side of the control socket.
type controlClient struct {
	path string
	http *http.Client
}

// errNoDaemon: there is no control socket, or nobody behind it. Only then does
// a command work on its own; a socket that may not be opened is a failure.
var errNoDaemon = errors.New("no daemon is running")

func newControlClient(listen string) *controlClient {
	path := strings.TrimPrefix(listen, "unix:")
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
	return &controlClient{path: path, http: &http.Client{Timeout: controlTimeout, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// call sends a request and reads the answer into out.
func (c *controlClient) call(ctx context.Context, method, path string, query url.Values, body io.Reader, out any) error {
	if c.path == "" {
		return fmt.Errorf("%w that could be asked ([control] listen is empty)", errNoDaemon)
	}
	// What a key holds would have to be escaped in a path: it goes into the query.
	target := url.URL{Scheme: "http", Host: "control", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, target.String(), body)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("control socket %s: permission denied; run the command as root or as the daemon's user", c.path)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w (nobody listens on %s)", errNoDaemon, c.path)
	case err != nil:
		return fmt.Errorf("control socket %s: %w", c.path, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && (resp.StatusCode != http.StatusServiceUnavailable || out == nil) {
		var f failure
		if json.NewDecoder(resp.Body).Decode(&f) != nil || f.Error == "" {
			f.Error = resp.Status
		}
		if resp.StatusCode == http.StatusNotFound {
			return &exitError{exitFindings, errors.New(f.Error)}
		}
		return errors.New(f.Error)
	}
	if out == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(out)
}
