package conf

import (
	"regexp"
	"strings"
)

// parseParams reads "name = value" lines, as postconf writes them.
func parseParams(out string) map[string]string {
	params := map[string]string{}
	for line := range strings.Lines(out) {
		name, value, found := strings.Cut(line, "=")
		if name = strings.TrimSpace(name); found && name != "" {
			params[name] = strings.TrimSpace(value)
		}
	}
	return params
}

// entry is one line of postconf -F or -P: SERVICE/TYPE/FIELD = VALUE.
type entry struct{ service, kind, field, value string }

// parseEntries reads the lines of postconf -F or -P. A service's name may hold
// slashes; its type and the field do not.
func parseEntries(out string) []entry {
	var entries []entry
	for line := range strings.Lines(out) {
		key, value, found := strings.Cut(line, " =")
		if !found {
			continue
		}
		key = strings.TrimSpace(key)
		last := strings.LastIndexByte(key, '/')
		if last <= 0 {
			continue
		}
		middle := strings.LastIndexByte(key[:last], '/')
		if middle <= 0 {
			continue
		}
		e := entry{service: strings.TrimSpace(key[:middle]), kind: strings.TrimSpace(key[middle+1 : last]), field: strings.TrimSpace(key[last+1:]), value: strings.TrimSpace(value)}
		if e.service != "" && e.kind != "" && e.field != "" {
			entries = append(entries, e)
		}
	}
	return entries
}

// master is what master.cf says about the services that run smtp(8) or lmtp(8),
// in its order.
func master(fields, overrides string, chrootByDefault bool) []*Service {
	var services []*Service
	at := map[[2]string]*Service{}
	chroot := map[[2]string]bool{}
	for _, e := range parseEntries(fields) {
		key := [2]string{e.service, e.kind}
		switch e.field {
		case "chroot":
			chroot[key] = e.value == "y" || e.value == "-" && chrootByDefault
		case "command":
			program, _, _ := strings.Cut(e.value, " ")
			program = program[strings.LastIndexByte(program, '/')+1:]
			if program == "smtp" || program == "lmtp" {
				s := &Service{Name: e.service, Type: e.kind, Command: program, Overrides: map[string]string{}}
				services, at[key] = append(services, s), s
			}
		}
	}
	for key, s := range at {
		s.Chroot = chroot[key]
	}
	for _, e := range parseEntries(overrides) {
		if s := at[[2]string{e.service, e.kind}]; s != nil {
			s.Overrides[e.field] = e.value
		}
	}
	return services
}

var serviceName = regexp.MustCompile(`\$(?:service_name\b|\{service_name\}|\(service_name\))`)

// options are the service's -o options for postconf's own -o, which expands
// everything but $service_name (read-only there before 3.11).
func (s *Service) options() []string {
	var args []string
	for _, name := range sortedKeys(s.Overrides) {
		args = append(args, "-o", name+"="+serviceName.ReplaceAllLiteralString(s.Overrides[name], s.Name))
	}
	return args
}
