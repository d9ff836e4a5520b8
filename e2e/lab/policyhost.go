//go:build linux

package lab

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// PolicyHostAddress is where the HTTPS server of every policy host of a world listens.
const PolicyHostAddress = "127.0.0.2"

// Site is how the policy host of one domain answers.
type Site struct {
	Body        string // LF or CRLF, sent as written
	Status      int    // default 200
	Certificate string // kind; default good
	CertNames   string // default mta-sts.DOMAIN
	Redirect    string // Location of a 302
	Hang        bool   // the handshake succeeds, the answer never comes
	Down        bool   // the handshake is refused
}

// PolicyHost serves https://mta-sts.DOMAIN/.well-known/mta-sts.txt for all domains, told apart by SNI.
type PolicyHost struct {
	pki    *PKI
	server *http.Server
	group  sync.WaitGroup

	mu       sync.Mutex
	sites    map[string]Site
	requests map[string]int
}

// NewPolicyHost starts the server.
func NewPolicyHost(network *Network, pki *PKI, sites map[string]Site) (*PolicyHost, error) {
	listener, err := network.Listen("tcp", net.JoinHostPort(PolicyHostAddress, "443"))
	if err != nil {
		return nil, err
	}
	h := &PolicyHost{pki: pki, sites: sites, requests: make(map[string]int)}
	h.server = &http.Server{
		Handler:           h,
		ReadHeaderTimeout: peerDeadline,
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: h.certificate},
		// What goes wrong in a handshake here is what a story asked for.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	h.group.Go(func() {
		if err := h.server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
			panic(fmt.Sprintf("lab policy host: %v", err))
		}
	})
	return h, nil
}

// Close ends the service, hanging answers included.
func (h *PolicyHost) Close() error {
	err := h.server.Close()
	h.group.Wait()
	return err
}

// Publish changes what a domain's policy host does.
func (h *PolicyHost) Publish(domain string, site Site) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sites[domain] = site
}

// Site is what the domain's policy host does now.
func (h *PolicyHost) Site(domain string) Site {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sites[domain]
}

// Requests counts the requests for a domain's policy so far.
func (h *PolicyHost) Requests(domain string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.requests[domain]
}

// ParseSite reads the words of a story: status=N, cert=KIND, names=A,B, redirect=URL, hang, down.
func ParseSite(body string, words []string) (Site, error) {
	site := Site{Body: body}
	for _, word := range words {
		var err error
		switch name, value, _ := strings.Cut(word, "="); name {
		case "status":
			site.Status, err = strconv.Atoi(value)
		case "cert":
			site.Certificate = value
		case "names":
			site.CertNames = value
		case "redirect":
			site.Redirect = value
		case "hang":
			site.Hang = true
		case "down":
			site.Down = true
		default:
			err = errors.New("unknown word")
		}
		if err != nil {
			return site, fmt.Errorf("policy host: %q: %w", word, err)
		}
	}
	return site, nil
}

const policyHostPrefix = "mta-sts."

func (h *PolicyHost) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	domain, ok := strings.CutPrefix(strings.ToLower(hello.ServerName), policyHostPrefix)
	h.mu.Lock()
	site, known := h.sites[domain]
	h.mu.Unlock()
	if !ok || !known || site.Down {
		return nil, fmt.Errorf("no policy host %q", hello.ServerName)
	}
	kind, names := site.Certificate, site.CertNames
	if kind == "" {
		kind = Good
	}
	if names == "" {
		names = policyHostPrefix + domain
	}
	return h.pki.Certificate(kind, names)
}

// ServeHTTP answers as the domain's Site says.
func (h *PolicyHost) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	domain := strings.TrimPrefix(strings.ToLower(r.TLS.ServerName), policyHostPrefix)
	h.mu.Lock()
	site := h.sites[domain]
	h.requests[domain]++
	h.mu.Unlock()
	switch {
	case site.Hang:
		waitFor(r.Context())
	case site.Redirect != "":
		http.Redirect(w, r, site.Redirect, http.StatusFound)
	case r.URL.Path != "/.well-known/mta-sts.txt":
		http.NotFound(w, r)
	default:
		w.Header().Set("Content-Type", "text/plain")
		if site.Status != 0 {
			w.WriteHeader(site.Status)
		}
		_, _ = io.WriteString(w, site.Body) // a client that went away is its own matter
	}
}

func waitFor(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(peerDeadline):
	}
}
