# The Postern appliance on three platforms, provisioned alike. Read by Packer 1.6 and later; current Packer also needs a
# copy of required-plugins.pkr.hcl.example (see README.md).

variable "version" {
  type        = string
  default     = "0.1.0"
  description = "Of the packages that go in; part of the image's name."
}

variable "architecture" {
  type        = string
  default     = "amd64"
  description = "Debian's word: amd64 or arm64."
}

variable "packages" {
  type        = string
  default     = "target/packages"
  description = "Folder of the .deb files to install: ours, and any others."
}

variable "aws_region" {
  type        = string
  default     = "eu-west-1"
  description = "Where the AMI is made."
}

variable "aws_copy_regions" {
  type        = list(string)
  default     = []
  description = "Where it is copied to."
}

variable "aws_users" {
  type        = list(string)
  default     = []
  description = "Accounts that may launch it, beside this one."
}

variable "gcp_project" {
  type        = string
  default     = "my-project"
  description = "Where the image is made."
}

variable "gcp_zone" {
  type        = string
  default     = "europe-west1-b"
  description = "Where the machine that makes it runs."
}

variable "qemu_base" {
  type        = string
  default     = "target/image/base.qcow2"
  description = "What build-base wrote."
}

variable "qemu_key" {
  type        = string
  default     = "target/image/packer-key"
  description = "What build-base wrote beside it."
}

variable "qemu_output" {
  type        = string
  default     = "target/image/qemu"
  description = "The folder the disk goes to; must not exist."
}

variable "qemu_accelerator" {
  type        = string
  default     = "tcg"
  description = "kvm where there is one."
}

variable "qemu_firmware" {
  type        = string
  default     = "/usr/share/ovmf/OVMF.fd"
  description = "UEFI, from Debian's package ovmf."
}

locals {
  name = "postern-${replace(var.version, ".", "-")}-${var.architecture}"
  # AWS's word for each architecture, and an instance type of it to build on.
  aws = {
    amd64 = { architecture = "x86_64", instance = "t3.small" }
    arm64 = { architecture = "arm64", instance = "t4g.small" }
  }
  gcp = {
    amd64 = { family = "debian-13", machine = "e2-small" }
    arm64 = { family = "debian-13-arm64", machine = "t2a-standard-1" }
  }
}

source "amazon-ebs" "postern" {
  region          = var.aws_region
  ami_name        = local.name
  ami_description = "Postern ${var.version}, cloud egress firewall, on Debian 13"
  ami_regions     = var.aws_copy_regions
  ami_users       = var.aws_users
  ena_support     = true
  instance_type   = local.aws[var.architecture].instance
  ssh_username    = "admin"
  source_ami_filter {
    # Debian's own account (Debian wiki, "Cloud/AmazonEC2Image").
    owners      = ["136693071363"]
    most_recent = true
    filters = {
      name                = "debian-13-${var.architecture}-*"
      architecture        = local.aws[var.architecture].architecture
      virtualization-type = "hvm"
      root-device-type    = "ebs"
    }
  }
  launch_block_device_mappings {
    device_name           = "/dev/xvda"
    volume_size           = 8
    volume_type           = "gp3"
    iops                  = 3000
    throughput            = 125
    delete_on_termination = true
  }
  tags = {
    Name    = local.name
    postern = var.version
  }
}

source "googlecompute" "postern" {
  project_id          = var.gcp_project
  zone                = var.gcp_zone
  source_image_family = local.gcp[var.architecture].family
  machine_type        = local.gcp[var.architecture].machine
  image_name          = local.name
  image_family        = "postern-${var.architecture}"
  image_description   = "Postern ${var.version}, cloud egress firewall, on Debian 13"
  disk_size           = 10
  disk_type           = "pd-balanced"
  ssh_username        = "packer"
}

source "qemu" "postern" {
  disk_image           = true
  iso_url              = var.qemu_base
  iso_checksum         = "none"
  format               = "qcow2"
  vm_name              = "postern.qcow2"
  output_directory     = var.qemu_output
  accelerator          = var.qemu_accelerator
  machine_type         = "q35"
  cpus                 = 2
  memory               = 1024
  net_device           = "virtio-net"
  disk_interface       = "virtio"
  disk_discard         = "unmap"
  skip_resize_disk     = true
  headless             = true
  boot_wait            = "1s"
  ssh_username         = "root"
  ssh_private_key_file = var.qemu_key
  ssh_timeout          = "8m"
  shutdown_command     = "systemctl poweroff"
  qemuargs = [
    # Not what qemu 7.2 emulates wrongly on two processors (cmpxchg16b), nor what only costs time.
    ["-cpu", "max,cx16=off,la57=off,svm=off"],
    ["-bios", var.qemu_firmware],
  ]
}

build {
  sources = [
    "source.amazon-ebs.postern",
    "source.googlecompute.postern",
    "source.qemu.postern",
  ]

  provisioner "shell" {
    inline = ["mkdir -p /tmp/postern/packages /tmp/postern/files"]
  }
  provisioner "file" {
    source      = "${var.packages}/"
    destination = "/tmp/postern/packages"
  }
  provisioner "file" {
    source      = "${path.root}/files/"
    destination = "/tmp/postern/files"
  }
  provisioner "file" {
    source      = "${path.root}/packages.txt"
    destination = "/tmp/postern/packages.txt"
  }
  provisioner "shell" {
    # Debian's cloud images log in as a user that may become root; the qemu base as root.
    execute_command = "chmod +x {{ .Path }}; {{ .Vars }} $(command -v sudo) sh {{ .Path }}"
    scripts = [
      "${path.root}/provision/10-packages.sh",
      "${path.root}/provision/20-appliance.sh",
      "${path.root}/provision/90-clean.sh",
    ]
  }
}
