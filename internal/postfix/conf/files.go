package conf

import (
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// bundles are where distributions keep the CA roots in one file.
var bundles = []string{
	"/etc/ssl/certs/ca-certificates.crt", // Debian, Ubuntu, Arch, Alpine
	"/etc/pki/tls/certs/ca-bundle.crt",   // Fedora, RHEL
	"/etc/ssl/ca-bundle.pem",             // openSUSE
	"/etc/ssl/cert.pem",                  // BSD
}

// readFiles looks at the CA files of the services that ask us, and at where the
// system keeps its own.
func (s *Snapshot) readFiles() {
	s.bundle = bundles[0]
	for _, path := range bundles {
		if _, err := os.Stat(path); err == nil {
			s.bundle = path
			break
		}
	}
	s.files = map[string]string{}
	for _, sv := range s.Ours() {
		if file := sv.Param("smtp_tls_CAfile"); file != "" {
			s.files[file] = judgeCAFile(absolute(file, s.QueueDirectory))
		}
		if dir := s.caFolder(sv); dir != "" {
			s.files[dir] = judgeCAFolder(dir)
		}
	}
}

// caFolder is smtp_tls_CApath as smtp(8) sees it: at run time, inside its jail.
func (s *Snapshot) caFolder(sv *Service) string {
	dir := sv.Param("smtp_tls_CApath")
	if dir == "" {
		return ""
	}
	if sv.Chroot {
		return filepath.Join(s.QueueDirectory, dir)
	}
	return absolute(dir, s.QueueDirectory)
}

// judgeCAFile says what keeps OpenSSL from loading the file, empty: nothing.
// smtp(8) opens it as root, so that our own lack of permission proves nothing.
func judgeCAFile(path string) string {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "does not exist"
	} else if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return "is no file"
	}
	data, err := io.ReadAll(io.LimitReader(f, maxCAFile+1))
	if err != nil || len(data) > maxCAFile {
		return "" // not for us to judge
	}
	if !x509.NewCertPool().AppendCertsFromPEM(data) {
		return "holds no certificate in PEM"
	}
	return ""
}

// judgeCAFolder says why no root can be found in the folder, empty: unknown or none.
func judgeCAFolder(path string) string {
	d, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "does not exist"
	} else if err != nil {
		return ""
	}
	defer d.Close()
	if _, err := d.Readdirnames(1); errors.Is(err, io.EOF) {
		return "is empty"
	}
	return ""
}
