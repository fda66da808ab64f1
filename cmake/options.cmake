# What every target of ours is compiled with: one interface library, linked by name.
add_library(dk_options INTERFACE)
target_compile_features(dk_options INTERFACE c_std_17)
target_compile_definitions(dk_options INTERFACE _XOPEN_SOURCE=700 DK_VERSION="${PROJECT_VERSION}")
target_include_directories(dk_options INTERFACE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
target_compile_options(dk_options INTERFACE
  -Wall -Wextra -Wshadow -Wconversion -Wmissing-prototypes -Wvla -Wundef -Werror
  -fno-math-errno -ffp-contract=off)
if(DK_SANITIZE)
  target_compile_options(dk_options INTERFACE -fsanitize=${DK_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
  target_link_options(dk_options INTERFACE -fsanitize=${DK_SANITIZE})
endif()
if(DK_FUZZ)
  target_compile_options(dk_options INTERFACE -fsanitize=fuzzer-no-link)
endif()

# A program loads only the libraries whose functions it calls.
target_link_options(dk_options INTERFACE -Wl,--as-needed)

find_package(OpenMP REQUIRED COMPONENTS C)
find_package(PkgConfig REQUIRED)
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson)
if(DK_MEDIA)
  pkg_check_modules(YAML REQUIRED IMPORTED_TARGET yaml-0.1)
  pkg_check_modules(PNG REQUIRED IMPORTED_TARGET libpng)
  pkg_check_modules(JPEG REQUIRED IMPORTED_TARGET libjpeg)
  pkg_check_modules(WEBP REQUIRED IMPORTED_TARGET libwebp libwebpmux)
  pkg_check_modules(AV REQUIRED IMPORTED_TARGET libavformat libavcodec libswscale libavutil)
  pkg_check_modules(CURL REQUIRED IMPORTED_TARGET libcurl)
  pkg_check_modules(CRYPTO REQUIRED IMPORTED_TARGET libcrypto)
endif()
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(CMOCKA IMPORTED_TARGET cmocka)
